/*
 * Each virtio device of tests/virtio/devices.c, as a driver that follows no rules: registers, configuration space, requests with any content, in any
 * queue, of any shape.
 *
 * Byte 0: which device. Then operations, a byte and what it needs:
 *   0 off width val(4)        a write to the common configuration      5 queue n {base off(2) len(2) kind}...  a chain of n buffers, notified
 *   1 off width val(4)        to the device's configuration            6 off(2) n bytes...                     content for buffers
 *   2 off                     a read of either                         7 mask                                  the device is set up anew
 *   3 queue                   a notification                           8                                       let it work
 *   4 off val(4)              a write to PCI configuration space       9                                       a pause, or the machine's reset
 */
#include <stdlib.h>

#include "base/log.h"
#include "fuzz.h"
#include "virtio/devices.h"
#include "virtio/driver.h"

#define DEVICES_MAX 16
#define BUFFERS     (64 * KIB)
#define CHAIN_MAX   8

struct subject {
    struct vboard b;
    struct driver d;
    uint64_t buf;
};

struct reader {
    const uint8_t *data;
    size_t size;
};

static struct subject subjects[DEVICES_MAX];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_set_level(LOG_LEVEL_ERROR);
    if (n_test_devices > DEVICES_MAX)
        abort();
    for (unsigned i = 0; i < n_test_devices; i++) {
        struct subject *s = &subjects[i];
        vboard_open(&s->b);
        driver_open(&s->d, &s->b, test_devices[i].type, test_devices[i].conf());
        s->buf = vboard_alloc(&s->b, BUFFERS, 4096);
        driver_init(&s->d, DRIVER_ALL);
    }
    return 0;
}

static uint32_t take(struct reader *in, unsigned bytes)
{
    uint32_t val = 0;
    unsigned n = bytes < in->size ? bytes : (unsigned)in->size;

    memcpy(&val, in->data, n);
    in->data += n;
    in->size -= n;
    return val;
}

static unsigned take_width(struct reader *in)
{
    return 1u << (take(in, 1) & 3);
}

/* The BAR and its decoding back where the driver looks for them, after the guest or a reset has moved them. */
static void restore_pci(struct driver *d)
{
    driver_pci_write(d, PCI_COMMAND, 2, 0);
    driver_pci_write(d, PCI_BAR0, 4, (uint32_t)d->bar);
    driver_pci_write(d, PCI_BAR0 + 4, 4, 0);
    driver_pci_write(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    driver_pci_write(d, (unsigned)d->msix_cap + 2, 2, 0x8000);
    for (unsigned i = 0; i <= d->n_queues; i++) {
        driver_write(d, d->table + 16 * (uint64_t)i, 8, 0xfee00000);
        driver_write(d, d->table + 16 * (uint64_t)i + 8, 8, i);
    }
}

static void set_up(struct subject *s, uint8_t mask)
{
    uint64_t without = (mask & 1 ? VIRTIO_F_RING_PACKED : 0) | (mask & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                       (mask & 4 ? VIRTIO_F_EVENT_IDX : 0) | (uint64_t)(mask >> 3) << (mask & 15);

    restore_pci(&s->d);
    driver_reset(&s->d);
    if (!driver_negotiate(&s->d, ~without | VIRTIO_F_VERSION_1))
        return; /* the device wants one feature with another */
    for (unsigned n = 0; n < s->d.n_queues; n++)
        driver_setup_queue(&s->d, n, mask & 0x10 ? 4 : 0);
    driver_ready(&s->d);
}

static void send_chain(struct subject *s, struct reader *in)
{
    unsigned queue = take(in, 1) % s->d.n_queues, n = 1 + take(in, 1) % CHAIN_MAX;
    struct driver_queue *q = &s->d.queues[queue];
    struct driver_buf bufs[CHAIN_MAX];

    for (unsigned i = 0; i < n; i++) {
        unsigned base = take(in, 1), off = take(in, 2), len = take(in, 2);
        const uint64_t bases[] = {q->desc,       q->avail, q->used,    VBOARD_RAM_LOW - 64,
                                  RAM_HIGH_BASE, 0,        VBOARD_BAR, UINT64_MAX - 64};
        bufs[i].gpa = base < 0xe0 ? s->buf + off % (BUFFERS / 2) : bases[base % ARRAY_SIZE(bases)] + off % 128;
        bufs[i].len = len % (BUFFERS / 2);
        bufs[i].write = take(in, 1) & 1;
    }
    if (!q->enabled)
        return;
    driver_force(q, bufs, n);
    driver_write(&s->d, q->notify, 2, queue);
}

static void put_content(struct subject *s, struct reader *in)
{
    unsigned off = take(in, 2) % (BUFFERS - 256), n = take(in, 1);

    for (unsigned i = 0; i < n && in->size; i++)
        vboard_at(&s->b, s->buf + off)[i] = (uint8_t)take(in, 1);
}

static void operate(struct subject *s, struct reader *in)
{
    struct driver *d = &s->d;
    unsigned off, width;

    switch (take(in, 1) % 10) {
    case 0:
        off = take(in, 1);
        width = take_width(in);
        driver_write(d, d->common + off, width, take(in, 4));
        break;
    case 1:
        off = take(in, 1);
        width = take_width(in);
        driver_write(d, d->bar + 0x2000 + off, width, take(in, 4));
        break;
    case 2:
        off = take(in, 1);
        driver_read(d, d->common + off, 4);
        driver_read(d, d->bar + 0x2000 + off, 8);
        break;
    case 3:
        off = take(in, 1);
        driver_write(d, d->notify + 4 * (uint64_t)off, 2, off);
        break;
    case 4:
        off = take(in, 1);
        driver_pci_write(d, off, 4, take(in, 4));
        break;
    case 5:
        send_chain(s, in);
        break;
    case 6:
        put_content(s, in);
        break;
    case 7:
        set_up(s, (uint8_t)take(in, 1));
        break;
    case 8:
        vboard_drain(&s->b);
        break;
    default:
        if (take(in, 1) & 7) {
            virtio_pci_pause(d->dev);
            virtio_pci_resume(d->dev);
        } else {
            device_reset(d->dev);
        }
        break;
    }
}

/* At the end a device that is set up anew agrees to be. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct subject *s = &subjects[data[0] % n_test_devices];
    struct reader in = {data + 1, size < 4096 ? size - 1 : 4095};

    memset(vboard_at(&s->b, s->buf), 0, BUFFERS);
    set_up(s, 0);
    while (in.size)
        operate(s, &in);
    vboard_drain(&s->b);
    restore_pci(&s->d);
    driver_init(&s->d, DRIVER_ALL);
    return 0;
}
