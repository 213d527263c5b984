/*
 * Multiboot 1 (Multiboot Specification 0.6.96): a file whose first 8 KiB hold a header, loaded as ELF32 or where the header itself
 * says ("a.out kludge"). The initrd is its one module.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#include "machine/loader_plan.h"

#define HEADER_MAGIC  0x1badb002u
#define HEADER_SEARCH 8192
#define LOADER_MAGIC  0x2badb002u

/* Header flags (section 3.1.2). Of the low 16, what a loader does not know it must refuse. */
#define FLAG_PAGE_ALIGN (1u << 0)
#define FLAG_MEMORY     (1u << 1)
#define FLAG_VIDEO      (1u << 2) /* the information says that there is no such thing */
#define FLAG_KLUDGE     (1u << 16)
#define FLAGS_REQUIRED  0xffffu
#define FLAGS_KNOWN     (FLAG_PAGE_ALIGN | FLAG_MEMORY | FLAG_VIDEO)

/* Information flags (section 3.3). */
#define INFO_MEMORY  (1u << 0)
#define INFO_CMDLINE (1u << 2)
#define INFO_MODS    (1u << 3)
#define INFO_MMAP    (1u << 6)
#define INFO_LOADER  (1u << 9)

/* All in the page at LOADER_INFO. */
enum {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE_PTR = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_NAME = 64,
    MODULE_OFF = 0x80,
    EMPTY_STRING_OFF = 0x90,
    NAME_OFF = 0x98,
    MMAP_OFF = 0x100,
    MMAP_ENTRY_SIZE = 24,
    INFO_SIZE = MMAP_OFF + MEMMAP_MAX_RANGES * MMAP_ENTRY_SIZE,
};

struct header {
    uint64_t offset; /* in the file */
    uint32_t flags;
};

static bool find_header(const struct loader_file *k, struct header *h)
{
    uint64_t end = k->size < HEADER_SEARCH ? k->size : HEADER_SEARCH;

    for (uint64_t off = 0; off + 12 <= end; off += 4) {
        const uint8_t *p = k->data + off;
        if (load_le32(p) == HEADER_MAGIC && load_le32(p) + load_le32(p + 4) + load_le32(p + 8) == 0) {
            *h = (struct header){.offset = off, .flags = load_le32(p + 4)};
            return true;
        }
    }
    return false;
}

static bool match(const struct loader_file *k)
{
    struct header h;

    return find_header(k, &h);
}

/* The header gives addresses, and by its own one says where the file's beginning goes. */
static int plan_kludge(const struct loader *loader, const struct loader_board *board, const struct header *h,
                       struct loader_plan *plan, struct err *err)
{
    const struct loader_file *k = &loader->kernel;
    const uint8_t *p = k->data + h->offset;

    if (h->offset + 32 > k->size)
        return err_set(err, -EINVAL, "kernel %s: truncated: %" PRIu64 " bytes, its multiboot header ends at %" PRIu64,
                       k->name, k->size, h->offset + 32);
    uint32_t header_addr = load_le32(p + 12), load_addr = load_le32(p + 16), load_end = load_le32(p + 20),
             bss_end = load_le32(p + 24);
    if (load_addr > header_addr || header_addr - load_addr > h->offset)
        return err_set(err, -EINVAL,
                       "kernel %s: multiboot header at offset %#" PRIx64 " says address %#x, load address %#x", k->name,
                       h->offset, header_addr, load_addr);
    uint64_t offset = h->offset - (header_addr - load_addr);
    uint64_t size = load_end ? (uint64_t)load_end - load_addr : k->size - offset;
    if (load_end && load_end < load_addr)
        return err_set(err, -EINVAL, "kernel %s: multiboot load end %#x lies before load address %#x", k->name,
                       load_end, load_addr);
    uint64_t mem_size = bss_end > load_addr + size ? bss_end - load_addr : size;
    int r = loader_add_piece(loader, board, plan, offset, size, load_addr, mem_size, err);
    plan->entry = load_le32(p + 28);
    return r;
}

static int plan_elf(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                    struct err *err)
{
    const struct loader_file *k = &loader->kernel;
    Elf32_Ehdr eh;

    if (k->size < sizeof(eh) || memcmp(k->data, ELFMAG, SELFMAG) != 0 || k->data[EI_CLASS] != ELFCLASS32 ||
        k->data[EI_DATA] != ELFDATA2LSB)
        return err_set(err, -EINVAL, "kernel %s: multiboot header without load addresses in a file that is not ELF32",
                       k->name);
    memcpy(&eh, k->data, sizeof(eh));
    if (eh.e_machine != EM_386 || eh.e_phentsize != sizeof(Elf32_Phdr))
        return err_set(err, -EINVAL, "kernel %s: ELF32 machine %u, program header size %u; must be %d and %zu", k->name,
                       eh.e_machine, eh.e_phentsize, EM_386, sizeof(Elf32_Phdr));
    if (eh.e_phoff > k->size || (uint64_t)eh.e_phnum * sizeof(Elf32_Phdr) > k->size - eh.e_phoff)
        return err_set(err, -EINVAL, "kernel %s: truncated: %" PRIu64 " bytes, but %u program headers at offset %#x",
                       k->name, k->size, eh.e_phnum, eh.e_phoff);
    plan->entry = eh.e_entry;
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf32_Phdr ph;
        memcpy(&ph, k->data + eh.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_LOAD || !ph.p_memsz)
            continue;
        int r = loader_add_piece(loader, board, plan, ph.p_offset, ph.p_filesz, ph.p_paddr, ph.p_memsz, err);
        if (r < 0)
            return r;
        /* Kernels linked high give a virtual entry point; it is entered where it was loaded. */
        if (eh.e_entry >= ph.p_vaddr && eh.e_entry - ph.p_vaddr < ph.p_memsz)
            plan->entry = (uint32_t)(eh.e_entry - ph.p_vaddr + ph.p_paddr);
    }
    return 0;
}

static int plan_multiboot(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                          struct err *err)
{
    struct header h;

    if (!find_header(&loader->kernel, &h))
        return err_set(err, -EINVAL, "kernel %s: no multiboot header", loader->kernel.name);
    if (h.flags & FLAGS_REQUIRED & ~FLAGS_KNOWN)
        return err_set(err, -EINVAL, "kernel %s: multiboot flags %#x ask for what vireo does not have; accepted: %#x",
                       loader->kernel.name, h.flags & FLAGS_REQUIRED, FLAGS_KNOWN);
    plan->low = true;
    plan->name_first = true; /* as GRUB and QEMU have it; kernels skip the first word */
    int r = h.flags & FLAG_KLUDGE ? plan_kludge(loader, board, &h, plan, err) : plan_elf(loader, board, plan, err);
    return r < 0 ? r : loader_check_entry(loader, plan, err);
}

static int enter(const struct loader *loader, const struct loader_board *board, const struct loader_plan *plan,
                 struct x86_state *st)
{
    uint8_t info[INFO_SIZE] = {0};
    struct memmap_range map[MEMMAP_MAX_RANGES];
    unsigned n = memmap_e820(board->ram, board->acpi_base, board->acpi_size, map);
    uint32_t base = (uint32_t)LOADER_INFO;
    uint32_t flags = INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER;

    store_le32(info + INFO_MEM_LOWER, (uint32_t)(MEMMAP_EBDA / 1024));
    store_le32(info + INFO_MEM_UPPER, (uint32_t)((board->acpi_base - MEMMAP_HIGH) / 1024));
    store_le32(info + INFO_CMDLINE_PTR, (uint32_t)LOADER_CMDLINE);
    if (loader->initrd.size) {
        flags |= INFO_MODS;
        store_le32(info + INFO_MODS_COUNT, 1);
        store_le32(info + INFO_MODS_ADDR, base + MODULE_OFF);
        store_le32(info + MODULE_OFF, (uint32_t)plan->initrd);
        store_le32(info + MODULE_OFF + 4, (uint32_t)(plan->initrd + loader->initrd.size));
        store_le32(info + MODULE_OFF + 8, base + EMPTY_STRING_OFF);
    }
    store_le32(info + INFO_MMAP_LENGTH, n * MMAP_ENTRY_SIZE);
    store_le32(info + INFO_MMAP_ADDR, base + MMAP_OFF);
    store_le32(info + INFO_LOADER_NAME, base + NAME_OFF);
    store_le32(info + INFO_FLAGS, flags);
    memcpy(info + NAME_OFF, "vireo", 6);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = info + MMAP_OFF + i * MMAP_ENTRY_SIZE;
        store_le32(e, MMAP_ENTRY_SIZE - 4); /* the size field does not count itself */
        store_le64(e + 4, map[i].base);
        store_le64(e + 12, map[i].size);
        store_le32(e + 20, map[i].type);
    }
    int r = ram_write(board->ram, LOADER_INFO, info, sizeof(info));
    if (r < 0)
        return r;
    st->gpr[X86_RAX] = LOADER_MAGIC;
    st->gpr[X86_RBX] = LOADER_INFO;
    return loader_enter_protected(board, plan, st);
}

const struct loader_protocol multiboot_protocol = {
    .name = "multiboot 1", .match = match, .plan = plan_multiboot, .enter = enter};
