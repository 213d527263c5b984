#include "virtio/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "virtio/virtq_impl.h"

#define BAR_STEP UINT64_C(0x10000)

#define REQUIRE(what)                                                  \
    do {                                                               \
        if (!(what)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                   \
        }                                                              \
    } while (0)

/* Registers of the common configuration (virtio 1.2 section 4.1.4.3). */
enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    STATUS = 0x14,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
};

/* ---- the machine ---- */

static void on_message(void *opaque, uint64_t addr, uint32_t data)
{
    struct vboard *b = opaque;

    pthread_mutex_lock(&b->lock);
    b->messages[data % VBOARD_VECTORS]++;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void on_pirq(void *opaque, unsigned n, bool level)
{
    struct vboard *b = opaque;

    pthread_mutex_lock(&b->lock);
    b->intx_rises += level && !b->intx;
    b->intx = level;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

void vboard_open(struct vboard *b)
{
    struct err err;

    memset(b, 0, sizeof(*b));
    REQUIRE(ram_open(&b->ram, VBOARD_RAM_LOW + VBOARD_RAM_HIGH, VBOARD_RAM_LOW, &err) == 0);
    REQUIRE(loop_open(&b->loop, &err) == 0);
    REQUIRE(iothread_open(&b->io, "device", &err) == 0);
    bus_init(&b->pio, NULL);
    bus_init(&b->mmio, NULL);
    clock_init(&b->clock, b->loop, NS_PER_SEC);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    b->env = (struct device_env){.loop = b->loop,
                                 .clock = &b->clock,
                                 .ram = &b->ram,
                                 .pio = &b->pio,
                                 .mmio = &b->mmio,
                                 .msi = {.send = on_message, .opaque = b}};
    REQUIRE(pci_bus_open(&b->env.pci, &b->pio, &b->mmio, &err) == 0);
    for (unsigned i = 0; i < PCI_N_PIRQS; i++)
        pci_bus_set_pirq(b->env.pci, i, &(struct irq_line){.set = on_pirq, .opaque = b, .n = i});
    b->next_low = 64 * KIB;
    b->next_high = RAM_HIGH_BASE;
}

void vboard_close(struct vboard *b)
{
    pci_bus_close(b->env.pci);
    iothread_close(b->io);
    clock_fini(&b->clock);
    bus_fini(&b->pio);
    bus_fini(&b->mmio);
    loop_close(b->loop);
    ram_close(&b->ram);
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
}

uint8_t *vboard_at(struct vboard *b, uint64_t gpa)
{
    uint8_t *host = ram_host(&b->ram, gpa, 1);

    REQUIRE(host);
    return host;
}

static uint64_t alloc(struct vboard *b, uint64_t *next, uint64_t len, uint64_t align)
{
    uint64_t gpa = align_up(*next, align);
    uint8_t *host = ram_host(&b->ram, gpa, len);

    REQUIRE(host);
    memset(host, 0, len);
    *next = gpa + len;
    return gpa;
}

uint64_t vboard_alloc(struct vboard *b, uint64_t len, uint64_t align)
{
    return alloc(b, &b->next_low, len, align);
}

uint64_t vboard_alloc_high(struct vboard *b, uint64_t len, uint64_t align)
{
    return alloc(b, &b->next_high, len, align);
}

static void nothing(void *opaque)
{
}

/* Events come behind posts in a turn of the loop, and a device may take two turns: to start, and to look at its queues. */
void vboard_drain(struct vboard *b)
{
    for (unsigned i = 0; i < 4; i++)
        iothread_call(b->io, nothing, NULL);
}

unsigned vboard_messages(struct vboard *b, unsigned data)
{
    pthread_mutex_lock(&b->lock);
    unsigned n = b->messages[data];
    pthread_mutex_unlock(&b->lock);
    return n;
}

static struct timespec deadline(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += VBOARD_WAIT_NS / NS_PER_SEC;
    return ts;
}

bool vboard_wait_message(struct vboard *b, unsigned data, unsigned seen)
{
    struct timespec until = deadline();
    int r = 0;

    pthread_mutex_lock(&b->lock);
    while (b->messages[data] == seen && r == 0)
        r = pthread_cond_timedwait(&b->changed, &b->lock, &until);
    bool came = b->messages[data] != seen;
    pthread_mutex_unlock(&b->lock);
    return came;
}

static bool wait_intx(struct vboard *b)
{
    struct timespec until = deadline();
    int r = 0;

    pthread_mutex_lock(&b->lock);
    while (!b->intx && r == 0)
        r = pthread_cond_timedwait(&b->changed, &b->lock, &until);
    bool came = b->intx;
    pthread_mutex_unlock(&b->lock);
    return came;
}

/* ---- registers ---- */

uint64_t driver_read(struct driver *d, uint64_t addr, unsigned len)
{
    uint64_t val = 0;

    bus_access(&d->b->mmio, addr, &val, len, false);
    return val;
}

void driver_write(struct driver *d, uint64_t addr, unsigned len, uint64_t val)
{
    bus_access(&d->b->mmio, addr, &val, len, true);
}

static void select_pci(struct driver *d, unsigned off)
{
    uint32_t address = UINT32_C(0x80000000) | (uint32_t)d->devfn << 8 | (off & 0xfc);

    bus_access(&d->b->pio, 0xcf8, &address, 4, true);
}

uint32_t driver_pci_read(struct driver *d, unsigned off, unsigned len)
{
    uint32_t val = 0;

    select_pci(d, off);
    bus_access(&d->b->pio, 0xcfc + (off & 3), &val, len, false);
    return val;
}

void driver_pci_write(struct driver *d, unsigned off, unsigned len, uint32_t val)
{
    select_pci(d, off);
    bus_access(&d->b->pio, 0xcfc + (off & 3), &val, len, true);
}

uint8_t driver_status(struct driver *d)
{
    return (uint8_t)driver_read(d, d->common + STATUS, 1);
}

bool driver_wait_status(struct driver *d, uint8_t bits)
{
    int64_t until = loop_now() + VBOARD_WAIT_NS;

    while ((driver_status(d) & bits) != bits && loop_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    return (driver_status(d) & bits) == bits;
}

/* ---- opening ---- */

/* struct virtio_pci_cap (4.1.4) */
static void take_vendor_cap(struct driver *d, unsigned at)
{
    unsigned type = driver_pci_read(d, at + 3, 1), bar = driver_pci_read(d, at + 4, 1);
    uint64_t addr = d->bar + driver_pci_read(d, at + 8, 4);

    switch (type) {
    case 1:
        d->common = addr;
        break;
    case 2:
        d->notify = addr;
        d->notify_step = driver_pci_read(d, at + 16, 4);
        break;
    case 3:
        d->isr = addr;
        break;
    case 4:
        d->config = addr;
        d->config_len = driver_pci_read(d, at + 12, 4);
        break;
    default:
        return;
    }
    REQUIRE(bar == 0);
}

static void find_caps(struct driver *d)
{
    unsigned at = driver_pci_read(d, PCI_CAPABILITIES, 1);

    for (unsigned seen = 0; at && seen < 48; seen++) {
        unsigned id = driver_pci_read(d, at, 1);
        if (id == PCI_CAP_VENDOR)
            take_vendor_cap(d, at);
        if (id == PCI_CAP_MSIX)
            d->msix_cap = (int)at;
        at = driver_pci_read(d, at + 1, 1);
    }
    REQUIRE(d->common && d->notify && d->isr && d->msix_cap);
    d->table = d->bar + (driver_pci_read(d, (unsigned)d->msix_cap + 4, 4) & ~7u);
}

static void enable_msix(struct driver *d)
{
    for (unsigned i = 0; i <= d->n_queues; i++) {
        driver_write(d, d->table + 16 * (uint64_t)i, 8, 0xfee00000);
        driver_write(d, d->table + 16 * (uint64_t)i + 8, 4, i);
        driver_write(d, d->table + 16 * (uint64_t)i + 12, 4, 0);
    }
    driver_pci_write(d, (unsigned)d->msix_cap + 2, 2, 0x8000);
    d->msix = true;
}

void driver_open(struct driver *d, struct vboard *b, const struct virtio_type *type, const void *conf)
{
    driver_open_at(d, b, 0, type, conf);
}

void driver_open_at(struct driver *d, struct vboard *b, unsigned nth, const struct virtio_type *type, const void *conf)
{
    struct err err;
    const struct virtio_pci_conf c = {
        .type = type, .conf = conf, .io = b->io, .name = type->name, .devfn = PCI_DEVFN(1 + nth, 0)};

    memset(d, 0, sizeof(*d));
    d->b = b;
    d->devfn = c.devfn;
    d->bar = VBOARD_BAR + nth * BAR_STEP;
    if (device_open(&d->dev, &virtio_pci_type, &b->env, &c, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    d->v = virtio_pci_of(d->dev);
    REQUIRE(driver_pci_read(d, PCI_VENDOR_ID, 4) == (0x1af4 | (0x1040u + type->id) << 16));
    driver_pci_write(d, PCI_BAR0, 4, (uint32_t)d->bar);
    driver_pci_write(d, PCI_BAR0 + 4, 4, 0);
    driver_pci_write(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    find_caps(d);
    d->n_queues = (unsigned)driver_read(d, d->common + NUM_QUEUES, 2);
    enable_msix(d);
}

void driver_close(struct driver *d)
{
    device_close(d->dev);
}

void driver_reset(struct driver *d)
{
    int64_t until = loop_now() + VBOARD_WAIT_NS;

    driver_write(d, d->common + STATUS, 1, 0);
    while (driver_status(d) && loop_now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
    REQUIRE(driver_status(d) == 0);
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
        d->queues[i].enabled = false;
}

bool driver_negotiate(struct driver *d, uint64_t features)
{
    uint64_t offered = 0;

    driver_write(d, d->common + STATUS, 1, VIRTIO_STATUS_ACKNOWLEDGE);
    driver_write(d, d->common + STATUS, 1, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        driver_write(d, d->common + DEVICE_FEATURE_SELECT, 4, half);
        offered |= driver_read(d, d->common + DEVICE_FEATURE, 4) << (32 * half);
    }
    d->features = features & offered;
    for (unsigned half = 0; half < 2; half++) {
        driver_write(d, d->common + DRIVER_FEATURE_SELECT, 4, half);
        driver_write(d, d->common + DRIVER_FEATURE, 4, (uint32_t)(d->features >> (32 * half)));
    }
    driver_write(d, d->common + STATUS, 1,
                 VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
    return driver_status(d) & VIRTIO_STATUS_FEATURES_OK;
}

static void write_address(struct driver *d, unsigned reg, uint64_t addr)
{
    driver_write(d, d->common + reg, 4, (uint32_t)addr);
    driver_write(d, d->common + reg + 4, 4, addr >> 32);
}

/* Fresh rings, where they were before if they fit. */
static void lay_out(struct driver_queue *q)
{
    struct vboard *b = q->d->b;

    if (q->room < q->size) {
        q->desc = vboard_alloc(b, 16 * (uint64_t)q->size, 16);
        q->avail = vboard_alloc(b, 6 + 2 * (uint64_t)q->size, 4);
        q->used = vboard_alloc(b, 6 + 8 * (uint64_t)q->size, 4);
        q->tables = 0;
        q->room = q->size;
    }
    memset(vboard_at(b, q->desc), 0, 16 * (size_t)q->size);
    memset(vboard_at(b, q->avail), 0, 6 + 2 * (size_t)q->size);
    memset(vboard_at(b, q->used), 0, 6 + 8 * (size_t)q->size);
}

void driver_setup_queue(struct driver *d, unsigned n, unsigned size)
{
    struct driver_queue *q = &d->queues[n];

    *q = (struct driver_queue){.d = d,
                               .n = n,
                               .avail_wrap = true,
                               .used_wrap = true,
                               .desc = q->desc,
                               .avail = q->avail,
                               .used = q->used,
                               .tables = q->tables,
                               .scratch = q->scratch,
                               .room = q->room};
    q->packed = d->features & VIRTIO_F_RING_PACKED;
    q->indirect = d->features & VIRTIO_F_INDIRECT_DESC;
    q->event_idx = d->features & VIRTIO_F_EVENT_IDX;
    driver_write(d, d->common + QUEUE_SELECT, 2, n);
    q->size = size ? size : (unsigned)driver_read(d, d->common + QUEUE_SIZE, 2);
    REQUIRE(q->size && q->size <= VIRTQ_SIZE_MAX);
    lay_out(q);
    q->notify = d->notify + d->notify_step * driver_read(d, d->common + QUEUE_NOTIFY_OFF, 2);
    q->n_free = q->size;
    for (unsigned i = 0; i < q->size; i++)
        q->next[i] = (uint16_t)(i + 1);
    driver_write(d, d->common + QUEUE_SIZE, 2, q->size);
    write_address(d, QUEUE_DESC, q->desc);
    write_address(d, QUEUE_DRIVER, q->avail);
    write_address(d, QUEUE_DEVICE, q->used);
    if (d->msix) {
        driver_write(d, d->common + QUEUE_VECTOR, 2, n);
        REQUIRE(driver_read(d, d->common + QUEUE_VECTOR, 2) == n);
        q->interrupts = vboard_messages(d->b, n);
    }
    driver_write(d, d->common + QUEUE_ENABLE, 2, 1);
    q->enabled = true;
}

void driver_ready(struct driver *d)
{
    if (d->msix)
        driver_write(d, d->common + CONFIG_VECTOR, 2, d->n_queues);
    driver_write(d, d->common + STATUS, 1, driver_status(d) | VIRTIO_STATUS_DRIVER_OK);
}

uint64_t driver_init(struct driver *d, uint64_t features)
{
    driver_reset(d);
    REQUIRE(driver_negotiate(d, features));
    for (unsigned i = 0; i < d->n_queues; i++)
        driver_setup_queue(d, i, 0);
    driver_ready(d);
    return d->features;
}

/* ---- rings ---- */

static void put_desc(uint8_t *at, uint64_t addr, uint32_t len, uint16_t third, uint16_t fourth)
{
    store_le64(at, addr);
    store_le32(at + 8, len);
    store_le16(at + 12, third);
    virtq_store16(at + 14, fourth);
}

static uint16_t take_free(struct driver_queue *q)
{
    uint16_t id = (uint16_t)q->first_free;

    q->first_free = q->next[id];
    return id;
}

static void give_free(struct driver_queue *q, uint16_t id)
{
    q->next[id] = (uint16_t)q->first_free;
    q->first_free = id;
}

static uint16_t write_flag(const struct driver_buf *buf)
{
    return buf->write ? VIRTQ_DESC_WRITE : 0;
}

static uint64_t indirect_table(struct driver_queue *q, uint16_t id, const struct driver_buf *bufs, unsigned n)
{
    if (!q->tables)
        q->tables = vboard_alloc(q->d->b, 16 * DRIVER_TABLE * (uint64_t)q->size, 16);
    uint64_t table = q->tables + 16 * DRIVER_TABLE * (uint64_t)id;

    for (unsigned i = 0; i < n; i++) {
        uint16_t more = !q->packed && i + 1 < n ? VIRTQ_DESC_NEXT : 0, flags = (uint16_t)(write_flag(&bufs[i]) | more);
        uint16_t next = (uint16_t)(i + 1);
        put_desc(vboard_at(q->d->b, table + 16 * (uint64_t)i), bufs[i].gpa, bufs[i].len, q->packed ? id : flags,
                 q->packed ? flags : next);
    }
    return table;
}

static int add_split(struct driver_queue *q, const struct driver_buf *bufs, unsigned n, bool indirect)
{
    uint16_t head = (uint16_t)q->first_free;

    q->slots[head] = (uint16_t)(indirect ? 1 : n);
    q->n_free -= q->slots[head];
    if (indirect) {
        take_free(q);
        put_desc(vboard_at(q->d->b, q->desc + 16 * (uint64_t)head), indirect_table(q, head, bufs, n), 16 * n,
                 VIRTQ_DESC_INDIRECT, 0);
    }
    for (unsigned i = 0; i < n && !indirect; i++) {
        uint16_t id = take_free(q);
        bool more = i + 1 < n;
        put_desc(vboard_at(q->d->b, q->desc + 16 * (uint64_t)id), bufs[i].gpa, bufs[i].len,
                 (uint16_t)(write_flag(&bufs[i]) | (more ? VIRTQ_DESC_NEXT : 0)), (uint16_t)q->first_free);
    }
    uint8_t *ring = vboard_at(q->d->b, q->avail);
    virtq_store16(ring + 4 + 2 * (q->avail_idx % q->size), head);
    virtq_store16(ring + 2, ++q->avail_idx);
    return head;
}

static int add_packed(struct driver_queue *q, const struct driver_buf *bufs, unsigned n, bool indirect)
{
    uint16_t id = take_free(q), first_flags = 0;
    unsigned first = q->avail_idx, slots = indirect ? 1 : n;

    q->slots[id] = (uint16_t)slots;
    q->n_free -= slots;
    for (unsigned i = 0; i < slots; i++) {
        uint16_t flags = q->avail_wrap ? VIRTQ_DESC_AVAIL : VIRTQ_DESC_USED;
        uint8_t *at = vboard_at(q->d->b, q->desc + 16 * (uint64_t)q->avail_idx);
        flags |= indirect ? VIRTQ_DESC_INDIRECT : write_flag(&bufs[i]);
        flags |= i + 1 < slots ? VIRTQ_DESC_NEXT : 0;
        store_le64(at, indirect ? indirect_table(q, id, bufs, n) : bufs[i].gpa);
        store_le32(at + 8, indirect ? 16 * n : bufs[i].len);
        store_le16(at + 12, id);
        if (i == 0)
            first_flags = flags;
        else
            virtq_store16(at + 14, flags);
        if (++q->avail_idx == q->size) {
            q->avail_idx = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    virtq_store16(vboard_at(q->d->b, q->desc + 16 * (uint64_t)first) + 14, first_flags);
    return id;
}

static int add(struct driver_queue *q, const struct driver_buf *bufs, unsigned n, bool indirect)
{
    unsigned slots = indirect ? 1 : n;

    REQUIRE(n && (!indirect || n <= DRIVER_TABLE));
    if (slots > q->n_free)
        return -1;
    return q->packed ? add_packed(q, bufs, n, indirect) : add_split(q, bufs, n, indirect);
}

int driver_add(struct driver_queue *q, const struct driver_buf *bufs, unsigned n)
{
    return add(q, bufs, n, q->indirect && n > 1 && n <= DRIVER_TABLE);
}

int driver_add_direct(struct driver_queue *q, const struct driver_buf *bufs, unsigned n)
{
    return add(q, bufs, n, false);
}

void driver_force(struct driver_queue *q, const struct driver_buf *bufs, unsigned n)
{
    q->n_free = q->size;
    if (n > q->size)
        n = q->size;
    for (unsigned i = 0; i < q->size && !q->packed; i++)
        q->next[i] = (uint16_t)((i + 1) % q->size);
    q->first_free %= q->size;
    add(q, bufs, n, false);
    if (q->packed)
        q->first_free = 0;
}

static bool wants_kick_split(struct driver_queue *q)
{
    uint8_t *used = vboard_at(q->d->b, q->used);
    uint16_t old = q->kicked_idx, now = q->avail_idx;

    if (!q->event_idx)
        return !(virtq_load16(used) & 1);
    uint16_t event = virtq_load16(used + 4 + 8 * q->size);
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* Enough for tests: where the device names a slot, it is told of everything from there on. */
static bool wants_kick_packed(struct driver_queue *q)
{
    uint8_t *event = vboard_at(q->d->b, q->used);
    uint16_t flags = virtq_load16(event + 2), at = virtq_load16(event);
    unsigned laps = 2 * q->size;

    if (flags != 2)
        return flags == 0;
    unsigned now = q->avail_idx + (q->avail_wrap ? 0 : q->size), old = q->kicked_idx,
             then = (at & 0x7fffu) + (at & 0x8000 ? 0 : q->size);
    return (now + laps - then - 1) % laps < (now + laps - old) % laps;
}

bool driver_kick(struct driver_queue *q)
{
    atomic_thread_fence(memory_order_seq_cst);
    bool wanted = q->packed ? wants_kick_packed(q) : wants_kick_split(q);

    q->kicked_idx = (uint16_t)(q->packed ? q->avail_idx + (q->avail_wrap ? 0 : q->size) : q->avail_idx);
    if (wanted) {
        q->kicks++;
        driver_write(q->d, q->notify, 2, q->n);
    }
    return wanted;
}

static bool get_split(struct driver_queue *q, unsigned *id, uint32_t *len)
{
    uint8_t *used = vboard_at(q->d->b, q->used);

    if (virtq_load16(used + 2) == q->used_idx)
        return false;
    uint8_t *entry = used + 4 + 8 * (q->used_idx % q->size);
    *id = load_le32(entry);
    *len = load_le32(entry + 4);
    REQUIRE(*id < q->size && q->slots[*id]);
    q->used_idx++;
    /* Back to the free list, from its end, so that its descriptors come out in order again. */
    uint16_t at = (uint16_t)*id, chain[VIRTQ_SIZE_MAX];
    for (unsigned i = 0; i < q->slots[*id]; i++) {
        chain[i] = at;
        at = load_le16(vboard_at(q->d->b, q->desc + 16 * (uint64_t)at) + 14);
    }
    for (unsigned i = q->slots[*id]; i--;)
        give_free(q, chain[i]);
    q->n_free += q->slots[*id];
    q->slots[*id] = 0;
    return true;
}

static bool get_packed(struct driver_queue *q, unsigned *id, uint32_t *len)
{
    uint8_t *at = vboard_at(q->d->b, q->desc + 16 * (uint64_t)q->used_idx);
    uint16_t flags = virtq_load16(at + 14);

    if (!!(flags & VIRTQ_DESC_AVAIL) != q->used_wrap || !!(flags & VIRTQ_DESC_USED) != q->used_wrap)
        return false;
    *id = load_le16(at + 12);
    *len = load_le32(at + 8);
    REQUIRE(*id < q->size && q->slots[*id]);
    unsigned next = q->used_idx + q->slots[*id];
    if (next >= q->size) {
        next -= q->size;
        q->used_wrap = !q->used_wrap;
    }
    q->used_idx = (uint16_t)next;
    q->n_free += q->slots[*id];
    q->slots[*id] = 0;
    give_free(q, (uint16_t)*id);
    return true;
}

bool driver_get(struct driver_queue *q, unsigned *id, uint32_t *len)
{
    return q->packed ? get_packed(q, id, len) : get_split(q, id, len);
}

/* Interrupt me when the chain after those that I have seen is used. */
static void ask_interrupt(struct driver_queue *q)
{
    uint8_t *avail = vboard_at(q->d->b, q->avail);

    if (q->packed) {
        virtq_store16(avail, (uint16_t)(q->used_idx | (q->used_wrap ? 0x8000 : 0)));
        virtq_store16(avail + 2, q->event_idx ? 2 : 0);
    } else {
        virtq_store16(avail + 4 + 2 * q->size, q->used_idx);
    }
    atomic_thread_fence(memory_order_seq_cst);
}

bool driver_wait(struct driver_queue *q, unsigned *id, uint32_t *len)
{
    for (;;) {
        unsigned seen = vboard_messages(q->d->b, q->n);
        ask_interrupt(q);
        if (driver_get(q, id, len))
            return true;
        if (q->d->msix ? !vboard_wait_message(q->d->b, q->n, seen) : !wait_intx(q->d->b))
            return false;
        if (!q->d->msix)
            driver_read(q->d, q->d->isr, 1);
    }
}

uint32_t driver_request(struct driver *d, unsigned n, const void *out, uint32_t out_len, void *in, uint32_t in_len)
{
    struct driver_queue *q = &d->queues[n];
    struct driver_buf bufs[2];
    unsigned n_bufs = 0, id;
    uint32_t written;

    REQUIRE(out_len + in_len <= DRIVER_SCRATCH);
    if (!q->scratch)
        q->scratch = vboard_alloc(d->b, DRIVER_SCRATCH, 4096);
    if (out_len) {
        memcpy(vboard_at(d->b, q->scratch), out, out_len);
        bufs[n_bufs++] = (struct driver_buf){.gpa = q->scratch, .len = out_len};
    }
    if (in_len)
        bufs[n_bufs++] = (struct driver_buf){.gpa = q->scratch + out_len, .len = in_len, .write = true};
    int sent = driver_add(q, bufs, n_bufs);
    REQUIRE(sent >= 0);
    driver_kick(q);
    REQUIRE(driver_wait(q, &id, &written) && id == (unsigned)sent && written <= in_len);
    if (in_len)
        memcpy(in, vboard_at(d->b, q->scratch + out_len), written);
    return written;
}
