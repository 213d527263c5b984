/*
 * A ring as the input wants it, walked by a device that only copies (tests/virtio/echo.c) and checks that what it is shown lies in RAM.
 *
 * Bytes 0 to 3: features (1 packed, 2 indirect, 4 event index), size, how far the available index moves, what lies in its event field. Then operations of 8 bytes:
 * the place (bit 7: the indirect table, else the ring; 0x7f: notify), what the address is relative to, an offset (2), a length (2: bit 15 makes it
 * large), flags, next. At the end the device must work again after a reset.
 */
#include <stdlib.h>

#include "base/log.h"
#include "fuzz.h"
#include "virtio/driver.h"
#include "virtio/echo.h"
#include "virtio/virtq_impl.h"

#define OPERATION 8
#define NOTIFY    0x7f
#define TABLE     64 /* descriptors */

static struct vboard board;
static struct driver driver;
static uint64_t buf, table;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_set_level(LOG_LEVEL_ERROR);
    vboard_open(&board);
    driver_open(&driver, &board, &echo_type, &(struct echo_conf){.queue_size = 64});
    buf = vboard_alloc(&board, 64 * KIB, 4096);
    table = vboard_alloc(&board, 16 * TABLE, 16);
    return 0;
}

static uint64_t address(const struct driver_queue *q, uint8_t base, uint16_t off)
{
    const uint64_t bases[] = {buf,
                              table,
                              q->desc,
                              q->avail,
                              q->used,
                              0,
                              VBOARD_RAM_LOW - 64,
                              RAM_HIGH_BASE - 64,
                              RAM_HIGH_BASE + VBOARD_RAM_HIGH - 64,
                              UINT64_MAX - 64,
                              VBOARD_BAR};

    return bases[base % ARRAY_SIZE(bases)] + (base & 0x80 ? off : off % 128);
}

static void put(struct driver_queue *q, const uint8_t *op)
{
    uint64_t at = op[0] & 0x80 ? table + 16 * (uint64_t)(op[0] % TABLE) : q->desc + 16 * (uint64_t)(op[0] % q->size);
    uint16_t len16 = load_le16(op + 4), flags = op[6] & (VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE | VIRTQ_DESC_INDIRECT);
    uint32_t len = len16 & 0x8000 ? (uint32_t)len16 << 17 | 0xfff0 : len16;
    uint8_t *desc = vboard_at(&board, at);

    if (q->packed && !(op[0] & 0x80))
        flags |= (op[6] & 0x40 ? 0 : VIRTQ_DESC_AVAIL) | (op[6] & 0x80 ? VIRTQ_DESC_USED : 0);
    store_le64(desc, address(q, op[1], load_le16(op + 2)));
    store_le32(desc + 8, len);
    store_le16(desc + 12, q->packed ? op[7] : flags);
    store_le16(desc + 14, q->packed ? flags : op[7]);
}

static void notify(struct driver_queue *q)
{
    driver_write(&driver, q->notify, 2, 0);
    vboard_drain(&board);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t byte = 0x5a, answer = 0;

    if (size < 4)
        return 0;
    driver_reset(&driver);
    if (!driver_negotiate(&driver, VIRTIO_F_VERSION_1 | (data[0] & 1 ? VIRTIO_F_RING_PACKED : 0) |
                                       (data[0] & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                                       (data[0] & 4 ? VIRTIO_F_EVENT_IDX : 0)))
        abort();
    driver_setup_queue(&driver, 0, data[0] & 1 ? 1u + data[1] % 64 : 1u << data[1] % 7);
    driver_ready(&driver);
    vboard_drain(&board);
    struct driver_queue *q = &driver.queues[0];
    uint8_t *avail = vboard_at(&board, q->avail);
    for (unsigned i = 0; i < q->size && !q->packed; i++)
        store_le16(avail + 4 + 2 * i, (uint16_t)(i < 4 ? i : data[i % 4]));
    store_le16(avail + (q->packed ? 0 : 4 + 2 * q->size), (uint16_t)(data[3] * 0x0101));
    virtq_store16(avail + 2, data[2]);
    for (size_t at = 4; at + OPERATION <= size && at < 4096; at += OPERATION) {
        if (data[at] == NOTIFY) {
            virtq_store16(avail + 2, (uint16_t)(virtq_load16(avail + 2) + data[at + 1]));
            notify(q);
        } else {
            put(q, data + at);
        }
    }
    notify(q);
    driver_init(&driver, DRIVER_ALL);
    if (driver_request(&driver, 0, &byte, 1, &answer, 1) != 1 || answer != byte)
        abort();
    return 0;
}
