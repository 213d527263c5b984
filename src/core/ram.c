#include "core/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RAM_MIN (64 * KIB)
#define RAM_MAX (1024 * GIB)

/* Zeroed and lazily backed: 64 GiB of guest costs nothing here until it is used. */
static void *map_lazy(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int ram_open(struct ram *ram, uint64_t size, uint64_t low_max, struct err *err)
{
    uint64_t pages = size >> RAM_PAGE_SHIFT;
    int r;

    *ram = (struct ram){.fd = -1};
    if (size < RAM_MIN || size > RAM_MAX || size % RAM_PAGE_SIZE)
        return err_set(err, -EINVAL, "memory of %" PRIu64 " bytes: must be whole 4 KiB pages, 64K to 1T", size);
    ram->size = size;
    ram->low = size < low_max ? size : low_max;
    ram->high = size - ram->low;

    ram->fd = memfd_create(RAM_MEMFD_NAME, MFD_CLOEXEC);
    if (ram->fd < 0)
        return err_set(err, -errno, "guest memory: memfd_create: %s", strerror(errno));
    if (ftruncate(ram->fd, (off_t)size) < 0) {
        r = err_set(err, -errno, "guest memory of %" PRIu64 " MiB: %s", size / MIB, strerror(errno));
        goto close_fd;
    }
    ram->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, 0);
    if (ram->base == MAP_FAILED) {
        r = err_set(err, -errno, "guest memory of %" PRIu64 " MiB: mmap: %s", size / MIB, strerror(errno));
        goto close_fd;
    }
    ram->page_flags = map_lazy(pages * sizeof(*ram->page_flags));
    ram->code = map_lazy(pages * sizeof(*ram->code));
    if (!ram->page_flags || !ram->code) {
        r = err_set(err, -ENOMEM, "guest memory of %" PRIu64 " MiB: no room for its page table", size / MIB);
        goto unmap;
    }
    return 0;

unmap:
    if (ram->page_flags)
        munmap((void *)ram->page_flags, pages * sizeof(*ram->page_flags));
    munmap(ram->base, size);
close_fd:
    close(ram->fd);
    ram->fd = -1;
    return r;
}

void ram_close(struct ram *ram)
{
    uint64_t pages = ram->size >> RAM_PAGE_SHIFT;

    if (ram->fd < 0)
        return;
    munmap(ram->code, pages * sizeof(*ram->code));
    munmap((void *)ram->page_flags, pages * sizeof(*ram->page_flags));
    munmap(ram->base, ram->size);
    close(ram->fd);
    ram->fd = -1;
}

int ram_read(const struct ram *ram, uint64_t gpa, void *buf, uint64_t len)
{
    const uint8_t *host = ram_host(ram, gpa, len);
    if (!host)
        return -EFAULT;
    memcpy(buf, host, len);
    return 0;
}

size_t ram_peek(const struct ram *ram, uint64_t gpa, void *buf, size_t len)
{
    const uint8_t *host = ram_host(ram, gpa, len);
    ssize_t n = host ? pread(ram->fd, buf, len, host - ram->base) : -1;

    return n < 0 ? 0 : (size_t)n;
}

/* Either this thread sees that code was decoded from the page, or whoever decodes it sees what this thread has stored. */
static void wrote_by_device(struct ram *ram, const uint8_t *host, uint64_t len)
{
    atomic_thread_fence(memory_order_seq_cst);
    ram_wrote(ram, host, len);
    if (ram->written)
        ram->written(ram->written_opaque, host, len);
}

/* All of the memfd is mapped for as long as the VM is there: a pin has nothing to hold yet. */
uint8_t *ram_pin(struct ram *ram, uint64_t gpa, uint64_t len)
{
    return ram_host(ram, gpa, len);
}

void ram_unpin(struct ram *ram, uint8_t *host, uint64_t len, bool stored)
{
    if (stored)
        wrote_by_device(ram, host, len);
}

void ram_stored(struct ram *ram, uint8_t *host, uint64_t len)
{
    wrote_by_device(ram, host, len);
}

int ram_write(struct ram *ram, uint64_t gpa, const void *buf, uint64_t len)
{
    uint8_t *host = ram_host(ram, gpa, len);
    if (!host)
        return -EFAULT;
    memcpy(host, buf, len);
    wrote_by_device(ram, host, len);
    return 0;
}

/*
 * A hole in the memfd. The mapping stays, so every pointer that engines and devices hold (a TLB's, a pin's) stays good: the kernel takes the pages
 * out of the page tables of all who map them, waits for the CPUs' own TLBs, and frees them. A store of a vCPU's meanwhile is either before the
 * hole, and lost with the page, or after it, and finds a page of zeroes; the same for what it loads, page walks and fetches among it. When
 * fallocate() has returned nobody sees the old bytes, so for decoded code it is a device's store like any other.
 */
static int punch(struct ram *ram, uint64_t first, uint64_t end)
{
    return fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first, (off_t)(end - first)) < 0
               ? -errno
               : 0;
}

int ram_discard(struct ram *ram, uint8_t *host, uint64_t len)
{
    uint64_t offset = (uint64_t)(host - ram->base);
    uint64_t first = align_up(offset, RAM_PAGE_SIZE), end = align_down(offset + len, RAM_PAGE_SIZE);

    if (first >= end)
        return 0;
    int r = punch(ram, first, end);
    if (r == 0)
        wrote_by_device(ram, ram->base + first, end - first);
    return r;
}

int ram_zero(struct ram *ram, uint64_t gpa, uint64_t len)
{
    uint8_t *host = ram_host(ram, gpa, len);
    if (!host)
        return -EFAULT;

    uint64_t offset = (uint64_t)(host - ram->base);
    uint64_t first = align_up(offset, RAM_PAGE_SIZE), last = align_down(offset + len, RAM_PAGE_SIZE);
    if (first < last && punch(ram, first, last) == 0) {
        memset(host, 0, first - offset);
        memset(ram->base + last, 0, offset + len - last);
    } else {
        memset(host, 0, len);
    }
    wrote_by_device(ram, host, len);
    return 0;
}

static void code_wrote(struct ram *ram, uint64_t page, uint64_t granules)
{
    atomic_fetch_add(&ram->code[page].version, 1);
    if (ram->code_written)
        ram->code_written(ram->code_opaque, page, granules);
}

/* Stored to [offset, offset + len) of the page. */
static bool wrote_page(struct ram *ram, uint64_t page, uint64_t offset, uint64_t len)
{
    struct ram_code *code = &ram->code[page];

    if (!(atomic_load_explicit(&ram->page_flags[page], memory_order_relaxed) & RAM_PAGE_CODE))
        return false;
    atomic_thread_fence(memory_order_seq_cst); /* against ram_claim_code() */
    uint64_t hit = atomic_load_explicit(&code->granules, memory_order_relaxed) & ram_granules(offset, len);
    uint32_t stores = atomic_load_explicit(&code->stores, memory_order_relaxed);
    atomic_store_explicit(&code->stores, stores + 1, memory_order_relaxed); /* one that is lost is none that matters */
    if (hit)
        code_wrote(ram, page, hit);
    return hit != 0;
}

bool ram_wrote(struct ram *ram, const uint8_t *host, uint64_t len)
{
    uint64_t at = (uint64_t)(host - ram->base), end = at + len;
    bool hit = false;

    while (at < end) {
        uint64_t offset = at & (RAM_PAGE_SIZE - 1), n = RAM_PAGE_SIZE - offset;
        n = n < end - at ? n : end - at;
        hit |= wrote_page(ram, at >> RAM_PAGE_SHIFT, offset, n);
        at += n;
    }
    return hit;
}

void ram_claim_code(struct ram *ram, const uint8_t *host, uint64_t len)
{
    struct ram_code *code = &ram->code[ram_page(ram, host)];
    uint64_t claimed = ram_granules((uint64_t)(host - ram->base) & (RAM_PAGE_SIZE - 1), len);

    /* Where they are claimed already, whoever did that had the barrier. */
    if (claimed & ~atomic_load(&code->granules))
        atomic_fetch_or(&code->granules, claimed);
}

void ram_forget_code(struct ram *ram, uint64_t page)
{
    atomic_store(&ram->code[page].granules, 0);
    code_wrote(ram, page, RAM_GRANULES_ALL);
}

void ram_keep_code(struct ram *ram, uint64_t page, uint64_t now, uint64_t keep)
{
    if (atomic_compare_exchange_strong(&ram->code[page].granules, &now, now & keep))
        code_wrote(ram, page, RAM_GRANULES_ALL);
}

/* Holes of the memfd are pages that nobody has touched, or that were given back. */
bool ram_next_backed(const struct ram *ram, uint64_t *offset, uint64_t *len)
{
    off_t first = *offset < ram->size ? lseek(ram->fd, (off_t)*offset, SEEK_DATA) : -1;

    if (first < 0) /* ENXIO: there is none */
        return false;
    off_t end = lseek(ram->fd, first, SEEK_HOLE);
    uint64_t from = align_down((uint64_t)first, RAM_PAGE_SIZE);
    uint64_t to = end < 0 ? ram->size : align_up((uint64_t)end, RAM_PAGE_SIZE);
    if (from < ram->low && to > ram->low)
        to = ram->low;
    *offset = from;
    *len = to - from;
    return true;
}

uint64_t ram_resident(const struct ram *ram)
{
    struct stat st;
    return fstat(ram->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

int ram_discard_all(struct ram *ram)
{
    return ram_zero(ram, 0, ram->low) ? -EFAULT : ram->high ? ram_zero(ram, RAM_HIGH_BASE, ram->high) : 0;
}
