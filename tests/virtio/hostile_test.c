/*
 * A guest that means harm, on every device of devices.c: chains, rings and registers made by hand. Whatever it does, vireo stands; what is malformed
 * stops the device until its reset; and after that it works.
 *
 * The chains are in a table, each for the split layout, the packed one, or both; register games are functions of their own; the races are in
 * race_test.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "unit/unit.h"
#include "virtio/devices.h"
#include "virtio/driver.h"
#include "virtio/echo.h"
#include "virtio/virtq_impl.h"

#define SPLIT       VIRTIO_F_VERSION_1
#define PACKED      (VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)
#define NEEDS_RESET VIRTIO_STATUS_NEEDS_RESET
#define STATUS      0x14
#define ECAM        UINT64_C(0xb0000000)

struct hand {
    struct vboard b;
    struct driver d;
    struct driver_queue *q;
    const struct test_device *row;
    uint64_t buf;   /* 64 KiB */
    uint64_t table; /* 64 KiB, for indirect tables */
};

static void hand_open(struct hand *h, const struct test_device *row)
{
    memset(h, 0, sizeof(*h));
    h->row = row;
    vboard_open(&h->b);
    driver_open(&h->d, &h->b, row->type, row->conf());
    h->q = &h->d.queues[row->queue];
    h->buf = vboard_alloc(&h->b, 64 * KIB, 4096);
    h->table = vboard_alloc(&h->b, 64 * KIB, 4096);
}

static void hand_close(struct hand *h)
{
    driver_close(&h->d);
    vboard_close(&h->b);
}

static const char *at_device; /* for messages */

static void check(bool good, const char *what)
{
    if (!good)
        fail_msg("%s: %s", at_device, what);
}

/* After whatever was done to it: a reset, and a chain comes back. */
static void check_works(struct hand *h, uint64_t features)
{
    const struct driver_buf bufs[] = {{h->buf, 16, false}, {h->buf + 4096, 512, true}};
    unsigned id;
    uint32_t len;

    driver_init(&h->d, features);
    check(driver_add_direct(h->q, bufs, 2) >= 0, "no room after a reset");
    driver_kick(h->q);
    check(driver_wait(h->q, &id, &len), "a good chain does not come back after a reset");
    check(!(driver_status(&h->d) & NEEDS_RESET), "broken by a good chain");
}

/* ---- chains by hand ---- */

enum { NEXT = VIRTQ_DESC_NEXT, WRITE = VIRTQ_DESC_WRITE, INDIRECT = VIRTQ_DESC_INDIRECT };

static void put_at(struct hand *h, uint64_t table, unsigned i, uint64_t addr, uint32_t len, unsigned flags,
                   unsigned next)
{
    uint8_t *at = vboard_at(&h->b, table + 16 * (uint64_t)i);

    store_le64(at, addr);
    store_le32(at + 8, len);
    store_le16(at + 12, (uint16_t)(h->q->packed ? next : flags));
    virtq_store16(at + 14, (uint16_t)(h->q->packed ? flags : next));
}

/* Descriptor i of the ring, in a packed one available. */
static void put(struct hand *h, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    put_at(h, h->q->desc, i, addr, len, flags | (h->q->packed ? VIRTQ_DESC_AVAIL : 0), next);
}

static void put_table(struct hand *h, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    put_at(h, h->table, i, addr, len, flags, next);
}

/* A chain from `head` is available: the packed ring says so by itself. */
static void offer(struct hand *h, unsigned head)
{
    uint8_t *avail = vboard_at(&h->b, h->q->avail);
    uint16_t idx = load_le16(avail + 2);

    if (h->q->packed)
        return;
    virtq_store16(avail + 4 + 2 * (idx % h->q->size), (uint16_t)head);
    virtq_store16(avail + 2, (uint16_t)(idx + 1));
}

static void move_idx(struct hand *h, unsigned by)
{
    uint8_t *avail = vboard_at(&h->b, h->q->avail);

    virtq_store16(avail + 2, (uint16_t)(load_le16(avail + 2) + by));
}

static void one(struct hand *h, uint64_t addr, uint32_t len, unsigned flags)
{
    put(h, 0, addr, len, flags, 0);
    offer(h, 0);
}

static void indirect(struct hand *h, uint64_t table, uint32_t len)
{
    one(h, table, len, INDIRECT);
}

static void points_to_itself(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT, 0);
    offer(h, 0);
}

static void loop_of_two(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT, 1);
    put(h, 1, h->buf, 16, NEXT, 0);
    offer(h, 0);
}

static void longer_than_queue(struct hand *h)
{
    for (unsigned i = 0; i < h->q->size; i++)
        put(h, i, h->buf, 16, NEXT, (i + 1) % h->q->size);
    offer(h, 0);
}

static void whole_queue(struct hand *h)
{
    for (unsigned i = 0; i < h->q->size; i++)
        put(h, i, h->buf + 16 * i, 16, i + 1 < h->q->size ? NEXT | WRITE : WRITE, i + 1);
    offer(h, 0);
}

static void next_beyond(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT, h->q->size);
    offer(h, 0);
}

static void next_far_beyond(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT, 0xffff);
    offer(h, 0);
}

static void head_beyond(struct hand *h)
{
    offer(h, h->q->size);
}

static void head_far_beyond(struct hand *h)
{
    offer(h, 0xffff);
}

static void zero_length(struct hand *h)
{
    put(h, 0, h->buf, 0, NEXT, 1);
    put(h, 1, h->buf, 16, NEXT | WRITE, 2);
    put(h, 2, UINT64_MAX, 0, WRITE, 0);
    offer(h, 0);
}

static void nothing_but_zero_length(struct hand *h)
{
    one(h, 0, 0, 0);
}

static void largest_length(struct hand *h)
{
    one(h, 0, UINT32_MAX, WRITE);
}

static void end_wraps(struct hand *h)
{
    one(h, UINT64_MAX - 15, 32, WRITE);
}

static void last_byte_there_is(struct hand *h)
{
    one(h, UINT64_MAX, 1, WRITE);
}

static void wraps_to_4g(struct hand *h)
{
    one(h, RAM_HIGH_BASE - 1 - UINT32_MAX, UINT32_MAX, WRITE);
}

static void buffer_in_bar(struct hand *h)
{
    one(h, h->d.bar, 16, WRITE);
}

static void buffer_in_ecam(struct hand *h)
{
    one(h, ECAM, 16, 0);
}

static void buffer_over_low_end(struct hand *h)
{
    one(h, VBOARD_RAM_LOW - 16, 32, WRITE);
}

static void buffer_over_high_start(struct hand *h)
{
    one(h, RAM_HIGH_BASE - 16, 32, WRITE);
}

static void buffer_over_high_end(struct hand *h)
{
    one(h, RAM_HIGH_BASE + VBOARD_RAM_HIGH - 16, 32, WRITE);
}

static void spans_the_hole(struct hand *h)
{
    one(h, VBOARD_RAM_LOW - 16, (uint32_t)(RAM_HIGH_BASE - VBOARD_RAM_LOW + 32), WRITE);
}

static void good_then_bad(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT, 1);
    put(h, 1, h->buf, 16, NEXT | WRITE, 2);
    put(h, 2, RAM_HIGH_BASE - 1, 1, WRITE, 0);
    offer(h, 0);
}

static void read_after_write(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT | WRITE, 1);
    put(h, 1, h->buf, 16, 0, 0);
    offer(h, 0);
}

static void idx_one_too_far(struct hand *h)
{
    move_idx(h, h->q->size + 1);
}

static void idx_half_way_round(struct hand *h)
{
    move_idx(h, 0x8000);
}

static void idx_backwards(struct hand *h)
{
    move_idx(h, 0xffff);
}

/* The same chain again and again: it is the guest's memory. */
static void same_head_all_over(struct hand *h)
{
    put(h, 0, h->buf, 16, NEXT, 1);
    put(h, 1, h->buf + 4096, 513, WRITE, 0);
    move_idx(h, h->q->size);
}

static void indirect_odd_length(struct hand *h)
{
    put_table(h, 0, h->buf, 16, WRITE, 0);
    indirect(h, h->table, 17);
}

static void indirect_short(struct hand *h)
{
    indirect(h, h->table, 15);
}

static void indirect_empty(struct hand *h)
{
    indirect(h, h->table, 0);
}

static void indirect_with_next(struct hand *h)
{
    put_table(h, 0, h->buf, 16, WRITE, 0);
    put(h, 0, h->table, 16, INDIRECT | NEXT, 1);
    put(h, 1, h->buf, 16, WRITE, 0);
    offer(h, 0);
}

static void indirect_nested(struct hand *h)
{
    put_table(h, 0, h->table + 64, 16, INDIRECT, 0);
    put_table(h, 4, h->buf, 16, WRITE, 0);
    indirect(h, h->table, 16);
}

static void indirect_of_itself(struct hand *h)
{
    put_table(h, 0, h->table, 16, INDIRECT, 0);
    indirect(h, h->table, 16);
}

static void indirect_to_ring(struct hand *h)
{
    indirect(h, h->q->desc, 16);
}

static void indirect_out_of_ram(struct hand *h)
{
    indirect(h, h->d.bar, 16);
}

static void indirect_over_low_end(struct hand *h)
{
    indirect(h, VBOARD_RAM_LOW - 16, 32);
}

static void indirect_wraps(struct hand *h)
{
    indirect(h, UINT64_MAX - 15, 32);
}

static void indirect_largest(struct hand *h)
{
    indirect(h, 0, 0xfffffff0);
}

static void indirect_loop(struct hand *h)
{
    put_table(h, 0, h->buf, 16, NEXT, 1);
    put_table(h, 1, h->buf, 16, NEXT, 0);
    indirect(h, h->table, 32);
}

static void indirect_next_beyond(struct hand *h)
{
    put_table(h, 0, h->buf, 16, NEXT, 1);
    indirect(h, h->table, 16);
}

/* All 4096 of the table, each the next one's predecessor. */
static void indirect_too_long(struct hand *h)
{
    for (unsigned i = 0; i < 4096; i++)
        put_table(h, i, h->buf, 16, i + 1 < 4096 ? NEXT | WRITE : WRITE, i + 1);
    indirect(h, h->table, 64 * KIB);
}

static void indirect_longest(struct hand *h)
{
    for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++)
        put_table(h, i, h->buf + i, 16, i + 1 < VIRTQ_SIZE_MAX ? NEXT | WRITE : WRITE, i + 1);
    indirect(h, h->table, 16 * VIRTQ_SIZE_MAX);
}

/* More than the 4 GiB that a used length can tell of. */
static void more_than_4g(struct hand *h)
{
    for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++)
        put_table(h, i, RAM_HIGH_BASE, (uint32_t)VBOARD_RAM_HIGH, i + 1 < VIRTQ_SIZE_MAX ? NEXT | WRITE : WRITE, i + 1);
    indirect(h, h->table, 16 * VIRTQ_SIZE_MAX);
}

static void indirect_read_after_write(struct hand *h)
{
    put_table(h, 0, h->buf, 16, NEXT | WRITE, 1);
    put_table(h, 1, h->buf, 16, 0, 0);
    indirect(h, h->table, 32);
}

/* The flag says nothing there (2.7.5.3.2). */
static void indirect_marked_write(struct hand *h)
{
    put_table(h, 0, h->buf, 16, 0, 0);
    one(h, h->table, 16, INDIRECT | WRITE);
}

static void direct_then_indirect(struct hand *h)
{
    put_table(h, 0, h->buf + 32, 16, WRITE, 0);
    put(h, 0, h->buf, 16, NEXT, 1);
    put(h, 1, h->table, 16, INDIRECT, 0);
    offer(h, 0);
}

static void indirect_in_used_ring(struct hand *h)
{
    uint64_t at = align_up(h->q->used + 8, 16);

    put_at(h, at, 0, h->buf, 16, WRITE, 0);
    indirect(h, at, 16);
}

static void indirect_misaligned(struct hand *h)
{
    uint64_t aligned = h->table;

    h->table += 3;
    put_table(h, 0, h->buf, 16, WRITE, 0);
    indirect(h, h->table, 16);
    h->table = aligned;
}

static void writes_to_descriptors(struct hand *h)
{
    one(h, h->q->desc, 16 * h->q->size, WRITE);
}

static void writes_to_driver_area(struct hand *h)
{
    one(h, h->q->avail, h->q->packed ? 4 : 6 + 2 * h->q->size, WRITE);
}

static void writes_to_device_area(struct hand *h)
{
    one(h, h->q->used, h->q->packed ? 4 : 6 + 8 * h->q->size, WRITE);
}

static void reads_what_it_writes(struct hand *h)
{
    put(h, 0, h->buf, 4096, NEXT, 1);
    put(h, 1, h->buf + 1, 4096, WRITE, 0);
    offer(h, 0);
}

static void unknown_flags(struct hand *h)
{
    put(h, 0, h->buf, 16, WRITE | 0x7f78, 0);
    offer(h, 0);
}

static void garbage_event(struct hand *h)
{
    uint8_t *avail = vboard_at(&h->b, h->q->avail);

    if (h->q->packed) {
        store_le16(avail, 0x7fff);
        store_le16(avail + 2, 2);
    } else {
        store_le16(avail, 0xfffe);
        store_le16(avail + 4 + 2 * h->q->size, 0x7fff);
    }
    one(h, h->buf, 16, WRITE);
}

static void reserved_event_flags(struct hand *h)
{
    store_le16(vboard_at(&h->b, h->q->avail) + 2, 0xfff7);
    one(h, h->buf, 16, WRITE);
}

static void id_beyond(struct hand *h)
{
    put(h, 0, h->buf, 16, WRITE, 0xffff);
}

static void nothing_available(struct hand *h)
{
    put_at(h, h->q->desc, 0, UINT64_MAX, 16, VIRTQ_DESC_AVAIL | VIRTQ_DESC_USED, 0);
}

/* Every slot available, as if none had ever been used: more than the device can hold, were it to hold them. */
static void all_single(struct hand *h)
{
    for (unsigned i = 0; i < h->q->size; i++) {
        put(h, i, h->buf, 16, WRITE, i);
        offer(h, i);
    }
}

static void code_as_buffer(struct hand *h)
{
    uint64_t page = ram_page(&h->b.ram, vboard_at(&h->b, h->buf));

    atomic_store(&h->b.ram.page_flags[page], RAM_PAGE_CODE | RAM_PAGE_MARKED);
    ram_claim_code(&h->b.ram, vboard_at(&h->b, h->buf), 64);
    one(h, h->buf, 64, WRITE);
}

static void code_as_used_ring(struct hand *h)
{
    uint8_t *used = vboard_at(&h->b, h->q->packed ? h->q->desc : h->q->used);

    atomic_store(&h->b.ram.page_flags[ram_page(&h->b.ram, used)], RAM_PAGE_CODE | RAM_PAGE_MARKED);
    ram_claim_code(&h->b.ram, used, 4);
    one(h, h->buf, 64, WRITE);
}

enum outcome {
    BREAKS,  /* DEVICE_NEEDS_RESET */
    RETURNS, /* the chain comes back */
    STANDS,  /* what the device does with it is its own affair; vireo stands */
    IDLE,    /* nothing comes back, and nothing is broken */
};
enum layouts { S = 1, P = 2, BOTH = 3, I = 4 /* with indirect descriptors */, E = 8 /* and event indices */ };

static const struct chain_case {
    const char *name;
    void (*make)(struct hand *h);
    unsigned layouts;
    enum outcome outcome;
} chain_cases[] = {
    {"a descriptor that points to itself", points_to_itself, S, BREAKS},
    {"a loop of two descriptors", loop_of_two, S, BREAKS},
    {"a chain longer than the queue", longer_than_queue, BOTH, BREAKS},
    {"a chain as long as the queue", whole_queue, BOTH, STANDS},
    {"next one beyond the table", next_beyond, S, BREAKS},
    {"next far beyond the table", next_far_beyond, S, BREAKS},
    {"an available head beyond the table", head_beyond, S, BREAKS},
    {"an available head far beyond the table", head_far_beyond, S, BREAKS},
    {"descriptors of length zero in a chain", zero_length, BOTH, STANDS},
    {"a chain of length zero", nothing_but_zero_length, BOTH, STANDS},
    {"the largest length", largest_length, BOTH, BREAKS},
    {"a buffer whose end wraps", end_wraps, BOTH, BREAKS},
    {"the last byte of the address space", last_byte_there_is, BOTH, BREAKS},
    {"a buffer that ends at 4 GiB", wraps_to_4g, BOTH, BREAKS},
    {"a buffer in the device's own BAR", buffer_in_bar, BOTH, BREAKS},
    {"a buffer in the ECAM window", buffer_in_ecam, BOTH, BREAKS},
    {"a buffer over the end of low RAM", buffer_over_low_end, BOTH, BREAKS},
    {"a buffer over the start of high RAM", buffer_over_high_start, BOTH, BREAKS},
    {"a buffer over the end of high RAM", buffer_over_high_end, BOTH, BREAKS},
    {"a buffer from low RAM over the hole to high RAM", spans_the_hole, BOTH, BREAKS},
    {"a bad buffer behind good ones", good_then_bad, BOTH, BREAKS},
    {"a readable buffer behind a writable one", read_after_write, BOTH, BREAKS},
    {"the available index moved by the queue's size and one", idx_one_too_far, S, BREAKS},
    {"the available index half way round", idx_half_way_round, S, BREAKS},
    {"the available index backwards", idx_backwards, S, BREAKS},
    {"one chain in every entry of the available ring", same_head_all_over, S, RETURNS},
    {"an indirect descriptor that was not agreed on", indirect_misaligned, BOTH, BREAKS},
    {"an indirect table of odd length", indirect_odd_length, BOTH | I, BREAKS},
    {"an indirect table shorter than a descriptor", indirect_short, BOTH | I, BREAKS},
    {"an empty indirect table", indirect_empty, BOTH | I, BREAKS},
    {"an indirect descriptor with a next", indirect_with_next, BOTH | I, BREAKS},
    {"an indirect table in an indirect table", indirect_nested, BOTH | I, BREAKS},
    {"an indirect table of itself", indirect_of_itself, BOTH | I, BREAKS},
    {"the ring as an indirect table", indirect_to_ring, BOTH | I, BREAKS},
    {"an indirect table out of RAM", indirect_out_of_ram, BOTH | I, BREAKS},
    {"an indirect table over the end of low RAM", indirect_over_low_end, BOTH | I, BREAKS},
    {"an indirect table whose end wraps", indirect_wraps, BOTH | I, BREAKS},
    {"the largest indirect table", indirect_largest, BOTH | I, BREAKS},
    {"a loop in an indirect table", indirect_loop, S | I, BREAKS},
    {"next beyond an indirect table", indirect_next_beyond, S | I, BREAKS},
    {"a chain in an indirect table that is too long", indirect_too_long, BOTH | I, BREAKS},
    {"the longest chain in an indirect table", indirect_longest, BOTH | I, STANDS},
    {"a chain of more than 4 GiB", more_than_4g, BOTH | I, BREAKS},
    {"a readable buffer behind a writable one in an indirect table", indirect_read_after_write, BOTH | I, BREAKS},
    {"an indirect descriptor marked as writable", indirect_marked_write, BOTH | I, STANDS},
    {"an indirect table behind a direct buffer", direct_then_indirect, BOTH | I, STANDS},
    {"an indirect table in the used ring", indirect_in_used_ring, S | I, STANDS},
    {"an indirect table that is not aligned", indirect_misaligned, BOTH | I, STANDS},
    {"the descriptors as a buffer to write", writes_to_descriptors, BOTH, STANDS},
    {"the driver's area as a buffer to write", writes_to_driver_area, BOTH, STANDS},
    {"the device's area as a buffer to write", writes_to_device_area, BOTH, STANDS},
    {"buffers that overlap", reads_what_it_writes, BOTH, STANDS},
    {"descriptor flags that nobody knows", unknown_flags, BOTH, STANDS},
    {"an event index that is nonsense", garbage_event, BOTH | E, STANDS},
    {"reserved event flags", reserved_event_flags, P | E, STANDS},
    {"a buffer id beyond the queue", id_beyond, P, STANDS},
    {"a slot whose flags say that it is used", nothing_available, P, IDLE},
    {"every descriptor a chain of its own", all_single, BOTH, STANDS},
    {"code as a buffer to write", code_as_buffer, BOTH, STANDS},
    {"code as the ring that the device writes", code_as_used_ring, BOTH, STANDS},
};

/* Anything given back since the device's start, whatever it is. */
static bool anything_used(struct hand *h)
{
    uint8_t *used = vboard_at(&h->b, h->q->used);

    if (!h->q->packed)
        return virtq_load16(used + 2) != 0;
    uint16_t flags = virtq_load16(vboard_at(&h->b, h->q->desc) + 14);
    return (flags & VIRTQ_DESC_AVAIL) && (flags & VIRTQ_DESC_USED);
}

static bool wait_used(struct hand *h)
{
    int64_t until = loop_now() + VBOARD_WAIT_NS;

    while (!anything_used(h) && loop_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    return anything_used(h);
}

static void run_chain_case(struct hand *h, const struct chain_case *c, uint64_t features)
{
    char what[160];

    snprintf(what, sizeof(what), "%s, %s, %s", h->row->name, features & VIRTIO_F_RING_PACKED ? "packed" : "split",
             c->name);
    at_device = what;
    driver_init(&h->d, features);
    vboard_drain(&h->b);
    if (getenv("VIREO_TEST_VERBOSE"))
        fprintf(stderr, "%s\n", what);
    c->make(h);
    driver_write(&h->d, h->q->notify, 2, h->q->n);
    vboard_drain(&h->b);
    bool broken = driver_status(&h->d) & NEEDS_RESET;
    if (c->outcome == BREAKS)
        check(broken, "the device is not broken");
    else if (c->outcome != STANDS)
        check(!broken, "the device is broken");
    if (c->outcome == RETURNS)
        check(wait_used(h), "nothing came back");
    if (c->outcome == BREAKS || (c->outcome == IDLE && c->make != nothing_available))
        check(!anything_used(h), "something came back");
    for (unsigned i = 0; i < 3; i++) /* what is broken stays so */
        driver_write(&h->d, h->q->notify, 2, h->q->n);
    check_works(h, features);
}

static void test_chains(void **state)
{
    static struct hand h;
    unsigned n = 0;

    for (unsigned i = 0; i < n_test_devices; i++) {
        hand_open(&h, &test_devices[i]);
        for (const struct chain_case *c = chain_cases; c < chain_cases + ARRAY_SIZE(chain_cases); c++) {
            uint64_t more = (c->layouts & I ? VIRTIO_F_INDIRECT_DESC : 0) | (c->layouts & E ? VIRTIO_F_EVENT_IDX : 0);
            if (c->layouts & S)
                run_chain_case(&h, c, SPLIT | more);
            if (c->layouts & P)
                run_chain_case(&h, c, PACKED | more);
            n += !!(c->layouts & S) + !!(c->layouts & P);
        }
        hand_close(&h);
    }
    print_message("# %zu chains by hand, %u runs on %u devices\n", ARRAY_SIZE(chain_cases), n, n_test_devices);
}

/* What the device stores to code is told to who runs it: as data and as its own ring. */
static void test_code_versions(void **state)
{
    static struct hand h;
    static void (*const makes[])(struct hand *) = {code_as_buffer, code_as_used_ring};

    for (unsigned i = 0; i < 4; i++) {
        uint64_t place;
        hand_open(&h, &test_devices[1]);
        driver_init(&h.d, i % 2 ? PACKED : SPLIT);
        vboard_drain(&h.b);
        place = i / 2 == 0 ? h.buf : i % 2 ? h.q->desc : h.q->used;
        makes[i / 2](&h);
        uint64_t page = ram_page(&h.b.ram, vboard_at(&h.b, place));
        uint32_t version = atomic_load(&h.b.ram.code[page].version);
        driver_write(&h.d, h.q->notify, 2, h.q->n);
        vboard_drain(&h.b);
        assert_true(anything_used(&h));
        assert_true(atomic_load(&h.b.ram.code[page].version) != version);
        hand_close(&h);
    }
}

/* ---- where rings are ---- */

static void write_ring(struct hand *h, unsigned reg, uint64_t addr)
{
    driver_write(&h->d, h->d.common + reg, 8, addr);
}

/* Sets the queue up, but for the address at `reg`, or with another size; the others are where they should be. */
static void ready_with(struct hand *h, uint64_t features, unsigned reg, uint64_t addr, unsigned size)
{
    driver_reset(&h->d);
    assert_true(driver_negotiate(&h->d, features));
    driver_write(&h->d, h->d.common + 0x16, 2, h->row->queue);
    if (size)
        driver_write(&h->d, h->d.common + 0x18, 2, size);
    write_ring(h, 0x20, h->table);
    write_ring(h, 0x28, h->table + 0x8000);
    write_ring(h, 0x30, h->table + 0xc000);
    if (reg)
        write_ring(h, reg, addr);
    driver_write(&h->d, h->d.common + 0x1c, 2, 1);
    driver_ready(&h->d);
}

static void test_rings_in_wrong_places(void **state)
{
    static const struct {
        const char *name;
        uint64_t addr;
    } places[] = {
        {"in a BAR", VBOARD_BAR},
        {"in the ECAM window", ECAM},
        {"in the hole", VBOARD_RAM_LOW},
        {"over the end of low RAM", VBOARD_RAM_LOW - 16},
        {"over the start of high RAM", RAM_HIGH_BASE - 16},
        {"over the end of high RAM", RAM_HIGH_BASE + VBOARD_RAM_HIGH - 16},
        {"beyond RAM", RAM_HIGH_BASE + VBOARD_RAM_HIGH},
        {"at the end of the address space", UINT64_MAX - 15},
        {"not aligned to 16", 0x10008},
        {"not aligned to 4", 0x10002},
        {"not aligned at all", 0x10001},
    };
    static const unsigned regs[] = {0x20, 0x28, 0x30}, split_align[] = {16, 2, 4}, packed_align[] = {16, 4, 4};
    static struct hand h;

    for (unsigned i = 0; i < n_test_devices; i++) {
        hand_open(&h, &test_devices[i]);
        at_device = test_devices[i].name;
        for (unsigned p = 0; p < ARRAY_SIZE(places); p++)
            for (unsigned r = 0; r < 3; r++)
                for (unsigned packed = 0; packed < 2; packed++) {
                    uint64_t addr = places[p].addr;
                    unsigned align = packed ? packed_align[r] : split_align[r];
                    if (addr < VBOARD_RAM_LOW - 16 && addr % align == 0)
                        continue; /* there it is allowed */
                    if (packed && r > 0 && addr % 16 == 0 && ram_host(&h.b.ram, addr, 4))
                        continue; /* four bytes fit there */
                    ready_with(&h, packed ? PACKED : SPLIT, regs[r], addr, 0);
                    vboard_drain(&h.b);
                    check(driver_status(&h.d) & NEEDS_RESET, places[p].name);
                }
        check_works(&h, SPLIT);
        hand_close(&h);
    }
}

/* The guest may lay its rings over one another. What comes of it is its own affair. */
static void test_rings_over_one_another(void **state)
{
    static const struct {
        unsigned reg;
        uint64_t off;
    } overlaps[] = {{0x30, 0}, {0x28, 0}, {0x28, 0xc000}, {0x30, 0x8000}, {0x20, 0xc000}, {0x30, 8}};
    static struct hand h;

    for (unsigned i = 0; i < n_test_devices; i++) {
        hand_open(&h, &test_devices[i]);
        at_device = test_devices[i].name;
        for (unsigned o = 0; o < ARRAY_SIZE(overlaps); o++)
            for (unsigned packed = 0; packed < 2; packed++) {
                memset(vboard_at(&h.b, h.table), 0, 64 * KIB);
                ready_with(&h, packed ? PACKED : SPLIT, overlaps[o].reg, h.table + overlaps[o].off, 0);
                h.q->packed = packed;
                for (unsigned slot = 0; slot < 64; slot++)
                    put_at(&h, h.table, slot, h.table, 64, WRITE | (packed ? VIRTQ_DESC_AVAIL : 0), slot);
                virtq_store16(vboard_at(&h.b, h.table + 0x8002), 16);
                for (unsigned k = 0; k < 16; k++)
                    driver_write(&h.d, h.d.notify + h.d.notify_step * h.row->queue, 2, h.row->queue);
                vboard_drain(&h.b);
            }
        check_works(&h, PACKED);
        hand_close(&h);
    }
}

static void test_sizes(void **state)
{
    static struct hand h;

    hand_open(&h, &test_devices[0]);
    for (unsigned size = 0; size < 1 << 16; size += size < 300 ? 1 : 997) {
        bool fits = size && size <= 256;
        driver_reset(&h.d);
        driver_write(&h.d, h.d.common + 0x16, 2, 0);
        driver_write(&h.d, h.d.common + 0x18, 2, size);
        assert_int_equal(driver_read(&h.d, h.d.common + 0x18, 2), fits ? size : 256);
    }
    for (unsigned size = 1; size < 256; size += 3) {
        ready_with(&h, SPLIT, 0, 0, size);
        vboard_drain(&h.b);
        assert_int_equal(!(driver_status(&h.d) & NEEDS_RESET), !(size & (size - 1)));
        ready_with(&h, PACKED, 0, 0, size);
        vboard_drain(&h.b);
        assert_false(driver_status(&h.d) & NEEDS_RESET);
    }
    check_works(&h, SPLIT);
    hand_close(&h);
}

/* ---- registers out of turn ---- */

static void test_registers_out_of_turn(void **state)
{
    static struct hand h;

    for (unsigned i = 0; i < n_test_devices; i++) {
        const struct test_device *row = &test_devices[i];
        hand_open(&h, row);
        at_device = row->name;
        /* Every queue register after DRIVER_OK, each queue enabled again, other features, another size: nothing of it holds. */
        driver_init(&h.d, SPLIT);
        for (unsigned n = 0; n < h.d.n_queues + 3; n++) {
            driver_write(&h.d, h.d.common + 0x16, 2, n);
            driver_write(&h.d, h.d.common + 0x18, 2, 2);
            for (unsigned reg = 0x20; reg < 0x38; reg += 8)
                driver_write(&h.d, h.d.common + reg, 8, UINT64_MAX);
            driver_write(&h.d, h.d.common + 0x1c, 2, 1);
            driver_write(&h.d, h.d.common + 0x1c, 2, 0);
        }
        driver_write(&h.d, h.d.common + 8, 4, 1);
        driver_write(&h.d, h.d.common + 12, 4, UINT32_MAX);
        uint8_t byte[16];
        memset(byte, 0, sizeof(byte));
        uint32_t n = driver_request(&h.d, row->queue, byte, sizeof(byte), byte, sizeof(byte));
        check(n <= sizeof(byte), "no answer");

        /* Enabled without DRIVER_OK, notified; then DRIVER_OK without any queue. */
        driver_reset(&h.d);
        assert_true(driver_negotiate(&h.d, SPLIT));
        driver_setup_queue(&h.d, row->queue, 0);
        all_single(&h);
        driver_write(&h.d, h.q->notify, 2, row->queue);
        vboard_drain(&h.b);
        check(!anything_used(&h), "works before DRIVER_OK");
        driver_reset(&h.d);
        assert_true(driver_negotiate(&h.d, SPLIT));
        driver_ready(&h.d);
        for (unsigned k = 0; k < 64; k++)
            driver_write(&h.d, h.d.notify + 4 * k, 2, k);
        vboard_drain(&h.b);

        /* Status bits of every kind and order. */
        for (unsigned status = 0; status < 256; status++) {
            driver_write(&h.d, h.d.common + STATUS, 1, status);
            driver_write(&h.d, h.d.common + STATUS, 1, 255 - status);
        }
        vboard_drain(&h.b);
        /* Features that were never offered, and none at all. */
        driver_reset(&h.d);
        for (unsigned half = 0; half < 4; half++) {
            driver_write(&h.d, h.d.common + 8, 4, half);
            driver_write(&h.d, h.d.common + 12, 4, UINT32_MAX);
        }
        driver_write(&h.d, h.d.common + STATUS, 1, 15);
        check(!(driver_status(&h.d) & VIRTIO_STATUS_FEATURES_OK), "took features that it did not offer");
        check(driver_status(&h.d) & NEEDS_RESET, "ready without features");
        check_works(&h, PACKED);
        hand_close(&h);
    }
}

/* Every offset and width of the BAR, read and written, before and while the device runs. */
static void test_whole_bar(void **state)
{
    static struct hand h;

    for (unsigned i = 0; i < n_test_devices; i++) {
        hand_open(&h, &test_devices[i]);
        at_device = test_devices[i].name;
        for (unsigned round = 0; round < 2; round++) {
            driver_init(&h.d, round ? PACKED : SPLIT);
            for (uint64_t off = 0; off < 0x8000; off += off % 0x1000 < 0x120 ? 1 : 0x1d)
                for (unsigned len = 1; len <= 8; len++) {
                    driver_read(&h.d, h.d.bar + off, len);
                    driver_write(&h.d, h.d.bar + off, len, round ? UINT64_MAX : off * 0x0101010101010101);
                }
            vboard_drain(&h.b);
            for (unsigned n = 0; n <= h.d.n_queues; n++) { /* the messages are what they were */
                driver_write(&h.d, h.d.table + 16 * (uint64_t)n, 8, 0xfee00000);
                driver_write(&h.d, h.d.table + 16 * (uint64_t)n + 8, 8, n);
            }
            check_works(&h, SPLIT);
        }
        hand_close(&h);
    }
}

static void test_whole_config_space(void **state)
{
    static struct hand h;

    hand_open(&h, &test_devices[0]);
    driver_init(&h.d, SPLIT);
    for (unsigned round = 0; round < 8; round++)
        for (unsigned off = 0; off < 256; off++)
            for (unsigned len = 1; len <= 4; len++) {
                if (off % 4 + len > 4)
                    continue;
                driver_pci_read(&h.d, off, len);
                driver_pci_write(&h.d, off, len, round * 0x21436587u + off * 0x01010101u);
            }
    vboard_drain(&h.b);
    device_reset(h.d.dev);
    hand_close(&h);
    hand_open(&h, &test_devices[0]);
    check_works(&h, SPLIT);
    hand_close(&h);
}

/* ---- resets, pauses and interrupts with work under way ---- */

static void fill_queue(struct hand *h)
{
    const struct driver_buf buf = {h->buf, 512, true};

    while (driver_add_direct(h->q, &buf, 1) >= 0)
        ;
    driver_write(&h->d, h->q->notify, 2, h->q->n);
}

static void test_reset_storm(void **state)
{
    static struct hand h;

    for (unsigned i = 0; i < n_test_devices; i++) {
        hand_open(&h, &test_devices[i]);
        at_device = test_devices[i].name;
        for (unsigned round = 0; round < 100; round++) {
            driver_init(&h.d, round % 2 ? PACKED : SPLIT);
            fill_queue(&h);
            for (unsigned k = 0; k < round % 10; k++)
                driver_write(&h.d, h.q->notify, 2, h.q->n);
            driver_write(&h.d, h.d.common + STATUS, 1, 0);
            driver_write(&h.d, h.q->notify, 2, h.q->n);
            driver_write(&h.d, h.d.common + STATUS, 1, 15); /* without waiting */
            driver_write(&h.d, h.d.common + STATUS, 1, 0);
            if (round % 16 == 0) {
                device_reset(h.d.dev);
                driver_pci_write(&h.d, PCI_BAR0, 4, (uint32_t)h.d.bar);
                driver_pci_write(&h.d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
                driver_pci_write(&h.d, (unsigned)h.d.msix_cap + 2, 2, 0x8000);
                for (unsigned n = 0; n <= h.d.n_queues; n++) {
                    driver_write(&h.d, h.d.table + 16 * (uint64_t)n, 8, 0xfee00000);
                    driver_write(&h.d, h.d.table + 16 * (uint64_t)n + 8, 8, n);
                }
            }
        }
        check_works(&h, PACKED);
        hand_close(&h);
    }
}

/* The right to master the bus, memory decoding, the BAR's place, MSI-X: all come and go with chains under way. */
static void test_pci_games(void **state)
{
    static struct hand h;

    for (unsigned i = 0; i < n_test_devices; i++) {
        hand_open(&h, &test_devices[i]);
        at_device = test_devices[i].name;
        driver_init(&h.d, PACKED);
        for (unsigned round = 0; round < 200; round++) {
            unsigned id;
            uint32_t len;
            fill_queue(&h);
            driver_pci_write(&h.d, PCI_COMMAND, 2, round % 2 ? PCI_COMMAND_MEMORY : PCI_COMMAND_MASTER);
            driver_write(&h.d, h.q->notify, 2, h.q->n);
            driver_pci_write(&h.d, PCI_BAR0, 4, (uint32_t)h.d.bar + (round % 3) * 0x100000);
            driver_pci_write(&h.d, (unsigned)h.d.msix_cap + 2, 2, round % 5 ? 0xc000 : 0);
            driver_pci_write(&h.d, PCI_BAR0, 4, (uint32_t)h.d.bar);
            driver_pci_write(&h.d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
            driver_pci_write(&h.d, (unsigned)h.d.msix_cap + 2, 2, 0x8000);
            for (unsigned n = 0; n < 16; n++)
                driver_write(&h.d, h.d.table + 16 * (uint64_t)(n % (h.d.n_queues + 1)) + 12, 4, n % 3 == 0);
            while (driver_get(h.q, &id, &len))
                ;
        }
        for (unsigned n = 0; n <= h.d.n_queues; n++)
            driver_write(&h.d, h.d.table + 16 * (uint64_t)n + 12, 4, 0);
        check_works(&h, PACKED);
        hand_close(&h);
    }
}

static void test_vectors_beyond(void **state)
{
    static struct hand h;

    hand_open(&h, &test_devices[1]);
    driver_init(&h.d, SPLIT);
    for (unsigned vector = 0; vector < 1 << 16; vector += 257) {
        driver_write(&h.d, h.d.common + 0x10, 2, vector);
        driver_write(&h.d, h.d.common + 0x1a, 2, vector);
        bool there = vector <= h.d.n_queues;
        assert_int_equal(driver_read(&h.d, h.d.common + 0x10, 2), there ? vector : 0xffff);
        assert_int_equal(driver_read(&h.d, h.d.common + 0x1a, 2), there ? vector : 0xffff);
        fill_queue(&h);
        virtio_config_changed(h.d.v);
        vboard_drain(&h.b);
        driver_init(&h.d, SPLIT);
    }
    check_works(&h, SPLIT);
    hand_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_code_versions),
        cmocka_unit_test(test_rings_in_wrong_places),
        cmocka_unit_test(test_rings_over_one_another),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_registers_out_of_turn),
        cmocka_unit_test(test_whole_bar),
        cmocka_unit_test(test_whole_config_space),
        cmocka_unit_test(test_reset_storm),
        cmocka_unit_test(test_pci_games),
        cmocka_unit_test(test_vectors_beyond),
    };
    return cmocka_run_group_tests_name("virtio hostile", tests, NULL, NULL);
}
