/*
 * Guest RAM: a memfd, and the only code that turns a guest-physical range into host memory.
 *
 * The guest sees RAM from 0 to `low` and from 4 GiB up (the PCI hole lies between). Pages are backed when first
 * touched. Every page has its state here (flags, and a version that moves when decoded code is overwritten):
 * ballooning, sharing and compression will hook in here too. So other code keeps no pointer into RAM across a return
 * to the guest; engines alone cache translations, and drop them when the machine is reset.
 *
 * Threads: ram_host, ram_read and ram_write from any; page flags are atomic.
 */
#ifndef CORE_RAM_H
#define CORE_RAM_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/err.h"

#define RAM_PAGE_SHIFT 12
#define RAM_PAGE_SIZE  (UINT64_C(1) << RAM_PAGE_SHIFT)
#define RAM_HIGH_BASE  (4 * GIB)
#define RAM_MEMFD_NAME "guest-ram" /* as /proc/PID/maps shows it, after "/memfd:" */

enum {
    RAM_PAGE_CODE = 1 << 0,   /* an engine holds decoded or translated code from this page, or is about to */
    RAM_PAGE_MARKED = 1 << 1, /* with RAM_PAGE_CODE: from here every store to the page moves its code_version on */
    RAM_PAGE_MARKS = 1 << 2,  /* the other bits: how many times it has been marked, as far as they can count */
};

struct ram {
    int fd;
    uint8_t *base;                  /* the whole memfd: [0, low) then [4 GiB, 4 GiB + high) */
    uint64_t size;                  /* bytes, low + high */
    uint64_t low;                   /* bytes below the PCI hole */
    uint64_t high;                  /* bytes from 4 GiB */
    _Atomic uint8_t *page_flags;    /* one a page, by offset into the memfd */
    _Atomic uint32_t *code_version; /* one a page: counts writes to pages marked RAM_PAGE_CODE */
    /* Called after a page's code_version has moved, by whoever moved it; set by an engine before anything runs, or NULL. */
    void (*code_written)(void *opaque, uint64_t page);
    void *code_opaque;
    /* Called after ram_write() or ram_zero() has stored to [host, host + len): who follows what devices do to RAM, or NULL. */
    void (*written)(void *opaque, const uint8_t *host, uint64_t len);
    void *written_opaque;
};

/* size: bytes, a multiple of 4 KiB, from 64 KiB to 1 TiB; low_max: where the PCI hole begins. */
int ram_open(struct ram *ram, uint64_t size, uint64_t low_max, struct err *err) MUST_CHECK;
void ram_close(struct ram *ram);

/* Host memory of [gpa, gpa + len), or NULL where any of it is not RAM. The pointer is valid until the caller next lets the guest run. */
static inline uint8_t *ram_host(const struct ram *ram, uint64_t gpa, uint64_t len)
{
    if (gpa < ram->low)
        return len <= ram->low - gpa ? ram->base + gpa : NULL;
    gpa -= RAM_HIGH_BASE;
    return gpa < ram->high && len <= ram->high - gpa ? ram->base + ram->low + gpa : NULL;
}

/* Index of the page at `host`, which ram_host() returned, into page_flags and code_version. */
static inline uint64_t ram_page(const struct ram *ram, const uint8_t *host)
{
    return (uint64_t)(host - ram->base) >> RAM_PAGE_SHIFT;
}

/* Copies; 0, or -EFAULT (and nothing copied) when any of the range is not RAM. For devices and loaders: a write tells the engines. */
int ram_read(const struct ram *ram, uint64_t gpa, void *buf, uint64_t len) MUST_CHECK;
int ram_write(struct ram *ram, uint64_t gpa, const void *buf, uint64_t len) MUST_CHECK;

/* Copies what the host still has of [gpa, gpa + len), also where a load would raise SIGBUS; the bytes from its start. */
size_t ram_peek(const struct ram *ram, uint64_t gpa, void *buf, size_t len);

/* Fills with zeroes without touching pages that are still absent where it can. */
int ram_zero(struct ram *ram, uint64_t gpa, uint64_t len) MUST_CHECK;

/*
 * Called after storing to [host, host + len): moves code_version on for pages that hold decoded code. Engines check it before
 * they run a block. Threads that answer no engine's requests (all but vCPUs) use ram_write(), which orders store and look.
 */
void ram_wrote(struct ram *ram, const uint8_t *host, uint64_t len);

/* Moves the code_version of one page on. */
void ram_code_wrote(struct ram *ram, uint64_t page);

/* Bytes of guest RAM that the host has backed by now. */
uint64_t ram_resident(const struct ram *ram);

/* Gives every page back; the guest reads zeroes. Only while no vCPU runs. */
int ram_discard_all(struct ram *ram) MUST_CHECK;

#endif
