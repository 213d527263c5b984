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
    RAM_PAGE_MARKED = 1 << 1, /* with RAM_PAGE_CODE: from here every store to the page is looked at by ram_wrote() */
    RAM_PAGE_MARKS = 1 << 2,  /* the other bits: how many times it has been marked, as far as they can count */
};

/* Code is told from data beside it by the granule: a bit of a page's 64 each. */
#define RAM_GRANULE_SHIFT 6
#define RAM_GRANULE_SIZE  (UINT64_C(1) << RAM_GRANULE_SHIFT)
#define RAM_GRANULES_ALL  UINT64_MAX

/* What is kept of a page with decoded code. */
struct ram_code {
    _Atomic uint64_t granules; /* of the page that code was decoded from: ram_claim_code() */
    _Atomic uint32_t version;  /* moves on with each store to one of them, and when they are forgotten */
    _Atomic uint32_t stores;   /* to the page, to whatever granule, while it was marked RAM_PAGE_CODE; about */
};

struct ram {
    int fd;
    uint8_t *base;               /* the whole memfd: [0, low) then [4 GiB, 4 GiB + high) */
    uint64_t size;               /* bytes, low + high */
    uint64_t low;                /* bytes below the PCI hole */
    uint64_t high;               /* bytes from 4 GiB */
    _Atomic uint8_t *page_flags; /* one a page, by offset into the memfd */
    struct ram_code *code;       /* the same */
    /* Called after a page's code version has moved, by whoever moved it; set by an engine before anything runs, or NULL. */
    void (*code_written)(void *opaque, uint64_t page, uint64_t granules);
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

/* Index of the page at `host`, which ram_host() returned, into page_flags and `code`. */
static inline uint64_t ram_page(const struct ram *ram, const uint8_t *host)
{
    return (uint64_t)(host - ram->base) >> RAM_PAGE_SHIFT;
}

/* The guest-physical address of `host`, which ram_host() returned. */
static inline uint64_t ram_gpa(const struct ram *ram, const uint8_t *host)
{
    uint64_t offset = (uint64_t)(host - ram->base);
    return offset < ram->low ? offset : offset - ram->low + RAM_HIGH_BASE;
}

/* The granules that [offset, offset + len) of a page touches; it lies within the page, and len is not 0. */
static inline uint64_t ram_granules(uint64_t offset, uint64_t len)
{
    unsigned first = (unsigned)(offset >> RAM_GRANULE_SHIFT),
             last = (unsigned)((offset + len - 1) >> RAM_GRANULE_SHIFT);
    return RAM_GRANULES_ALL << first & RAM_GRANULES_ALL >> (63 - last);
}

/* Copies; 0, or -EFAULT (and nothing copied) when any of the range is not RAM. For devices and loaders: a write tells the engines. */
int ram_read(const struct ram *ram, uint64_t gpa, void *buf, uint64_t len) MUST_CHECK;
int ram_write(struct ram *ram, uint64_t gpa, const void *buf, uint64_t len) MUST_CHECK;

/* Copies what the host still has of [gpa, gpa + len), also where a load would raise SIGBUS; the bytes from its start. */
size_t ram_peek(const struct ram *ram, uint64_t gpa, void *buf, size_t len);

/*
 * For devices that move data themselves: host memory of [gpa, gpa + len), pinned until ram_unpin() however long the guest runs, or NULL where
 * any of it is not RAM. Who has stored to it says so, which tells the engines.
 */
uint8_t *ram_pin(struct ram *ram, uint64_t gpa, uint64_t len) MUST_CHECK;
void ram_unpin(struct ram *ram, uint8_t *host, uint64_t len, bool stored);

/* Stored to a part of what stays pinned. */
void ram_stored(struct ram *ram, uint8_t *host, uint64_t len);

/*
 * Gives the whole pages of [host, host + len), which is RAM, back to the host: they read as zeroes from now on, and are backed again when they are
 * touched. Any thread, whatever the vCPUs do: see ram.c. -errno, and the pages are as they were, where the host cannot.
 */
int ram_discard(struct ram *ram, uint8_t *host, uint64_t len) MUST_CHECK;

/* Fills with zeroes without touching pages that are still absent where it can. */
int ram_zero(struct ram *ram, uint64_t gpa, uint64_t len) MUST_CHECK;

/*
 * Called after storing to [host, host + len): moves the code version of pages on where code was decoded from the granules stored to. Returns
 * whether there were any. Engines check the version before they run a block. Threads that answer no engine's requests
 * (all but vCPUs) use ram_write(), which orders store and look.
 */
bool ram_wrote(struct ram *ram, const uint8_t *host, uint64_t len);

/*
 * Code is to be decoded from [host, host + len), within a page that is marked: stores to it move the page's code version on from here. Who
 * stores does so first and then looks at the granules; who decodes claims first and then reads the bytes. A full barrier is between the two on
 * either side, so that at least one of them sees the other.
 */
void ram_claim_code(struct ram *ram, const uint8_t *host, uint64_t len);

/*
 * Forgets the granules of the page, or those not in `keep` unless they are no longer `now`. Then the code version moves on, so that who has
 * decoded from the page, or is about to, must claim anew before believing its bytes.
 */
void ram_forget_code(struct ram *ram, uint64_t page);
void ram_keep_code(struct ram *ram, uint64_t page, uint64_t now, uint64_t keep);

/*
 * The next stretch that may hold something: *offset bytes into the RAM, not counting the PCI hole, and *len of them; false where all from *offset on reads
 * as zeroes. It ends at a boundary of pages, and at the hole. While no vCPU runs.
 */
bool ram_next_backed(const struct ram *ram, uint64_t *offset, uint64_t *len);

/* Bytes of guest RAM that the host has backed by now. */
uint64_t ram_resident(const struct ram *ram);

/* Gives every page back; the guest reads zeroes. Only while no vCPU runs. */
int ram_discard_all(struct ram *ram) MUST_CHECK;

#endif
