/* See gdb_memory.h. */
#include "gdb/gdb_memory.h"

#include <errno.h>

#include "x86/paging.h"

/* The guest-physical address of addr; false where it has none. */
static bool translate(const struct gdb_memory *m, uint64_t addr, uint64_t *gpa)
{
    const struct x86_state *st = m->st;
    struct paging p = {
        .ram = m->ram, .cr0 = st->cr0, .cr3 = st->cr3, .cr4 = st->cr4, .efer = st->efer, .phys_bits = m->phys_bits};
    struct paging_result result;

    if (!x86_long_mode(st))
        addr = (uint32_t)addr;
    *gpa = addr;
    if (!(st->cr0 & X86_CR0_PG))
        return true;
    if ((uint64_t)((int64_t)(addr << 16) >> 16) != addr)
        return false;
    memcpy(p.pdpte, st->pdpte, sizeof(p.pdpte));
    if (paging_walk(&p, addr, PAGING_PEEK, &result) < 0)
        return false;
    *gpa = result.gpa;
    return true;
}

/* The part of [addr, addr + len) that lies in addr's page, and where that is; 0 where it is not RAM. */
static size_t part(const struct gdb_memory *m, uint64_t addr, size_t len, uint64_t *gpa)
{
    uint64_t left = RAM_PAGE_SIZE - addr % RAM_PAGE_SIZE;
    size_t n = len < left ? len : (size_t)left;

    return translate(m, addr, gpa) && ram_host(m->ram, *gpa, n) ? n : 0;
}

size_t gdb_memory_read(const struct gdb_memory *m, uint64_t addr, uint8_t *buf, size_t len)
{
    size_t done = 0, n;
    uint64_t gpa;

    for (; done < len; done += n) {
        n = part(m, addr + done, len - done, &gpa);
        if (!n || ram_read(m->ram, gpa, buf + done, n) < 0)
            break;
    }
    return done;
}

int gdb_memory_write(const struct gdb_memory *m, uint64_t addr, const uint8_t *buf, size_t len)
{
    uint64_t gpa;
    size_t n;

    for (size_t done = 0; done < len; done += n) {
        n = part(m, addr + done, len - done, &gpa);
        if (!n)
            return -EFAULT;
    }
    for (size_t done = 0; done < len; done += n) {
        n = part(m, addr + done, len - done, &gpa);
        if (!n || ram_write(m->ram, gpa, buf + done, n) < 0)
            return -EFAULT; /* it has written over the page tables that led here */
    }
    return 0;
}
