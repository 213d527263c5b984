#include "machine/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/loader_plan.h"

static const struct loader_protocol *const protocols[] = {&bzimage_protocol, &pvh_protocol, &multiboot_protocol};

#define ACCEPTED "a bzImage, an ELF64 file with a PVH note, or a multiboot 1 file"

/* The BIOS data area, by physical address. */
#define BIOS_COM1             UINT64_C(0x400) /* port of the first serial line */
#define BIOS_EBDA_SEGMENT     UINT64_C(0x40e)
#define BIOS_MEMORY_KIB       UINT64_C(0x413) /* conventional memory below the EBDA */
#define BIOS_CONVENTIONAL_END UINT64_C(0xa0000)
#define BIOS_COM1_PORT        0x3f8

/* Files are copied in parts, and each is let go of at once, so that vireo never has a whole initrd resident besides the guest's. */
#define COPY_PART MIB

static int map_file(struct loader_file *file, const char *what, const char *path, struct err *err)
{
    struct stat st;
    int r;

    *file = (struct loader_file){.name = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    if (file->fd < 0)
        return err_set(err, -errno, "%s %s: %s", what, path, strerror(errno));
    if (fstat(file->fd, &st) < 0) {
        r = err_set(err, -errno, "%s %s: %s", what, path, strerror(errno));
        goto close_fd;
    }
    if (!S_ISREG(st.st_mode)) {
        r = err_set(err, -EINVAL, "%s %s: not a regular file", what, path);
        goto close_fd;
    }
    if (!st.st_size) {
        r = err_set(err, -EINVAL, "%s %s: the file is empty", what, path);
        goto close_fd;
    }
    file->size = (uint64_t)st.st_size;
    file->data = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (file->data == MAP_FAILED) {
        r = err_set(err, -errno, "%s %s: mmap: %s", what, path, strerror(errno));
        goto close_fd;
    }
    return 0;

close_fd:
    close(file->fd);
    *file = (struct loader_file){.fd = -1};
    return r;
}

static void unmap_file(struct loader_file *file)
{
    if (!file->size)
        return;
    munmap((void *)(uintptr_t)file->data, file->size);
    close(file->fd);
    *file = (struct loader_file){.fd = -1};
}

static int recognise(struct loader *loader, struct err *err)
{
    const struct loader_file *k = &loader->kernel;

    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
        if (protocols[i]->match(k)) {
            loader->protocol = protocols[i];
            return 0;
        }
    if (k->size >= 4 && memcmp(k->data, "\177ELF", 4) == 0)
        return err_set(err, -EINVAL, "kernel %s: ELF file without a PVH note or multiboot header; accepted: " ACCEPTED,
                       k->name);
    if (k->size >= 2 && k->data[0] == 0x1f && k->data[1] == 0x8b)
        return err_set(err, -EINVAL, "kernel %s: compressed by gzip, unpack it first; accepted: " ACCEPTED, k->name);
    return err_set(err, -EINVAL, "kernel %s: not a kernel that vireo knows (%" PRIu64 " bytes); accepted: " ACCEPTED,
                   k->name, k->size);
}

int loader_open(struct loader *loader, const char *kernel, const char *initrd, const char *append, struct err *err)
{
    *loader = (struct loader){.append = append ? append : "", .mapped = true};
    int r = map_file(&loader->kernel, "kernel", kernel, err);
    if (r < 0)
        return r;
    if (initrd)
        r = map_file(&loader->initrd, "initrd", initrd, err);
    if (r == 0)
        r = recognise(loader, err);
    if (r < 0)
        loader_close(loader);
    return r;
}

int loader_open_memory(struct loader *loader, const struct loader_file *kernel, const struct loader_file *initrd,
                       const char *append, struct err *err)
{
    *loader = (struct loader){.kernel = *kernel, .append = append ? append : ""};
    if (initrd)
        loader->initrd = *initrd;
    return recognise(loader, err);
}

void loader_close(struct loader *loader)
{
    if (loader->mapped) {
        unmap_file(&loader->kernel);
        unmap_file(&loader->initrd);
    }
    *loader = (struct loader){0};
}

int loader_add_piece(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                     uint64_t offset, uint64_t size, uint64_t gpa, uint64_t mem_size, struct err *err)
{
    const struct loader_file *k = &loader->kernel;

    if (offset > k->size || size > k->size - offset)
        return err_set(err, -EINVAL,
                       "kernel %s: truncated: %" PRIu64 " bytes, but it wants %#" PRIx64 " bytes at offset %#" PRIx64,
                       k->name, k->size, size, offset);
    if (size > mem_size)
        return err_set(err, -EINVAL, "kernel %s: a segment of %#" PRIx64 " bytes for %#" PRIx64 " bytes of memory",
                       k->name, size, mem_size);
    bool low = plan->low && gpa >= LOADER_LOW && mem_size <= LOADER_LOW_END && gpa <= LOADER_LOW_END - mem_size;
    if (plan->low && gpa < MEMMAP_HIGH && !low)
        return err_set(err, -EINVAL,
                       "kernel %s: loads %#" PRIx64 " bytes at %#" PRIx64 "; must be within %#" PRIx64 " to %#" PRIx64
                       ", or 1 MiB or above",
                       k->name, mem_size, gpa, LOADER_LOW, LOADER_LOW_END);
    if (gpa < MEMMAP_HIGH && !low)
        return err_set(err, -EINVAL, "kernel %s: loads at %#" PRIx64 "; must be 1 MiB or above", k->name, gpa);
    if (mem_size > board->acpi_base || gpa > board->acpi_base - mem_size)
        return err_set(err, -ENOSPC,
                       "kernel %s: needs %" PRIu64 " KiB of memory at %" PRIu64
                       " MiB, but there is memory up to %" PRIu64 " KiB only",
                       k->name, (mem_size + 1023) / 1024, gpa / MIB, board->acpi_base / 1024);
    if (plan->n_pieces == LOADER_MAX_PIECES)
        return err_set(err, -EINVAL, "kernel %s: more than %d segments", k->name, LOADER_MAX_PIECES);
    plan->pieces[plan->n_pieces++] =
        (struct loader_piece){.gpa = gpa, .mem_size = mem_size, .data = k->data + offset, .size = size};
    if (plan->end < gpa + mem_size)
        plan->end = gpa + mem_size;
    return 0;
}

int loader_check_entry(const struct loader *loader, const struct loader_plan *plan, struct err *err)
{
    for (unsigned i = 0; i < plan->n_pieces; i++)
        if (plan->entry >= plan->pieces[i].gpa && plan->entry - plan->pieces[i].gpa < plan->pieces[i].mem_size)
            return 0;
    return err_set(err, -EINVAL, "kernel %s: its entry point %#" PRIx64 " lies in none of its segments",
                   loader->kernel.name, plan->entry);
}

static int place_cmdline(const struct loader *loader, const struct loader_plan *plan, struct err *err)
{
    uint64_t max = LOADER_CMDLINE_MAX, len = strlen(loader->append);

    if (plan->name_first)
        len += strlen(loader->kernel.name) + 1;
    if (plan->cmdline_max && plan->cmdline_max < max)
        max = plan->cmdline_max;
    if (len > max)
        return err_set(err, -EINVAL, "command line: %" PRIu64 " characters; kernel %s accepts up to %" PRIu64, len,
                       loader->kernel.name, max);
    return 0;
}

/* "APPEND", or "KERNEL APPEND"; place_cmdline() has made sure that it fits. */
static int write_cmdline(const struct loader *loader, const struct loader_board *board, const struct loader_plan *plan)
{
    uint64_t gpa = LOADER_CMDLINE;
    int r = 0;

    if (plan->name_first) {
        size_t len = strlen(loader->kernel.name);
        r = ram_write(board->ram, gpa, loader->kernel.name, len);
        if (r == 0)
            r = ram_write(board->ram, gpa + len, " ", 1);
        gpa += len + 1;
    }
    return r < 0 ? r : ram_write(board->ram, gpa, loader->append, strlen(loader->append) + 1);
}

/* As high as it may be, on a page of its own: the kernel grows from below. */
static int place_initrd(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                        struct err *err)
{
    uint64_t top = board->acpi_base, size = loader->initrd.size;

    if (!size)
        return 0;
    if (plan->initrd_max && plan->initrd_max < top)
        top = plan->initrd_max;
    if (size > UINT32_MAX || plan->end > top || size > top - plan->end ||
        align_down(top - size, RAM_PAGE_SIZE) < plan->end)
        return err_set(err, -ENOSPC,
                       "initrd %s: %" PRIu64 " KiB do not fit: memory of %" PRIu64 " MiB has %" PRIu64
                       " KiB left beside the kernel",
                       loader->initrd.name, (size + 1023) / 1024, board->ram->size / MIB,
                       top > plan->end ? (top - plan->end) / 1024 : 0);
    plan->initrd = align_down(top - size, RAM_PAGE_SIZE);
    return 0;
}

static int make_plan(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                     struct err *err)
{
    *plan = (struct loader_plan){.end = MEMMAP_HIGH};
    int r = loader->protocol->plan(loader, board, plan, err);
    if (r == 0)
        r = place_cmdline(loader, plan, err);
    if (r == 0)
        r = place_initrd(loader, board, plan, err);
    return r;
}

int loader_check(const struct loader *loader, const struct loader_board *board, struct err *err)
{
    struct loader_plan plan;

    return make_plan(loader, board, &plan, err);
}

/* A file that shrank under its mapping would kill us by SIGBUS, so look first. */
static int check_unchanged(const struct loader *loader, const struct loader_file *file, const char *what,
                           struct err *err)
{
    struct stat st;

    if (!loader->mapped || !file->size)
        return 0;
    if (fstat(file->fd, &st) < 0 || (uint64_t)st.st_size != file->size)
        return err_set(err, -ESTALE, "%s %s: its size has changed since the VM was started", what, file->name);
    return 0;
}

static int copy(const struct loader *loader, struct ram *ram, uint64_t gpa, const uint8_t *data, uint64_t size)
{
    while (size) {
        uint64_t n = size < COPY_PART ? size : COPY_PART;
        int r = ram_write(ram, gpa, data, n);
        if (r < 0)
            return r;
        if (loader->mapped) {
            uint64_t first = align_down((uintptr_t)data, RAM_PAGE_SIZE);
            madvise((void *)(uintptr_t)first, (uintptr_t)data + n - first, MADV_DONTNEED);
        }
        gpa += n;
        data += n;
        size -= n;
    }
    return 0;
}

/*
 * What kernels look up in the BIOS data area to learn where conventional memory ends (IBM PS/2 BIOS Interface Technical Reference, "BIOS Data
 * Area"), before they ask, or where there is nobody to ask.
 */
static int write_bios_data(struct ram *ram)
{
    uint8_t com1[2], ebda[2], kib[2], ebda_kib = (uint8_t)((BIOS_CONVENTIONAL_END - MEMMAP_EBDA) / KIB);

    store_le16(com1, BIOS_COM1_PORT);
    store_le16(ebda, (uint16_t)(MEMMAP_EBDA >> 4));
    store_le16(kib, (uint16_t)(MEMMAP_EBDA / KIB));
    int r = ram_write(ram, BIOS_COM1, com1, sizeof(com1));
    if (r == 0)
        r = ram_write(ram, BIOS_EBDA_SEGMENT, ebda, sizeof(ebda));
    if (r == 0)
        r = ram_write(ram, BIOS_MEMORY_KIB, kib, sizeof(kib));
    return r < 0 ? r : ram_write(ram, MEMMAP_EBDA, &ebda_kib, sizeof(ebda_kib));
}

int loader_boot(const struct loader *loader, const struct loader_board *board, struct x86_state *st, struct err *err)
{
    struct loader_plan plan;
    int r = make_plan(loader, board, &plan, err);

    if (r == 0)
        r = check_unchanged(loader, &loader->kernel, "kernel", err);
    if (r == 0)
        r = check_unchanged(loader, &loader->initrd, "initrd", err);
    if (r < 0)
        return r;
    r = write_bios_data(board->ram); /* first: a kernel may be placed over it */
    for (unsigned i = 0; i < plan.n_pieces && r == 0; i++) {
        const struct loader_piece *p = &plan.pieces[i];
        r = copy(loader, board->ram, p->gpa, p->data, p->size);
        if (r == 0)
            r = ram_zero(board->ram, p->gpa + p->size, p->mem_size - p->size);
    }
    if (r == 0)
        r = copy(loader, board->ram, plan.initrd, loader->initrd.data, loader->initrd.size);
    if (r == 0)
        r = write_cmdline(loader, board, &plan);
    if (r == 0)
        r = loader->protocol->enter(loader, board, &plan, st);
    if (r < 0)
        return err_set(err, r, "kernel %s: memory of %" PRIu64 " KiB has no room for it", loader->kernel.name,
                       board->ram->size / 1024);
    return 0;
}
