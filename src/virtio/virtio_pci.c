#include "virtio/virtio_pci.h"

#include <errno.h>

#include "core/pci_msix.h"
#include "virtio/virtio_doorbell.h"
#include "virtio/virtq_impl.h"

#define VENDOR_ID      0x1af4
#define FIRST_DEVICE   0x1040 /* and the type's id (4.1.2.1) */
#define REVISION       1
#define BAR            0
#define BAR_PAGE       0x1000
#define BAR_SIZE       0x8000
#define NOTIFY_STEP    4 /* bytes between two queues' notification addresses */
#define NO_VECTOR      VIRTQ_NO_VECTOR
#define ISR_QUEUE      1
#define ISR_CONFIG     2
#define CFG_DATA_BYTES 4

/* Pages of the BAR. */
enum { PAGE_COMMON, PAGE_ISR, PAGE_DEVICE, PAGE_NOTIFY, PAGE_TABLE, PAGE_PBA };

/* cfg_type in struct virtio_pci_cap (4.1.4). */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };
enum { CAP_LEN = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_SIZE = 16, CAP_EXTRA = 16 };

/* struct virtio_pci_common_cfg (4.1.4.3). */
enum {
    COMMON_DEVICE_FEATURE_SELECT = 0x00,
    COMMON_DEVICE_FEATURE = 0x04,
    COMMON_DRIVER_FEATURE_SELECT = 0x08,
    COMMON_DRIVER_FEATURE = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_NUM_QUEUES = 0x12,
    COMMON_STATUS = 0x14,
    COMMON_GENERATION = 0x15,
    COMMON_QUEUE_SELECT = 0x16,
    COMMON_QUEUE_SIZE = 0x18,
    COMMON_QUEUE_VECTOR = 0x1a,
    COMMON_QUEUE_ENABLE = 0x1c,
    COMMON_QUEUE_NOTIFY_OFF = 0x1e,
    COMMON_QUEUE_DESC = 0x20,
    COMMON_QUEUE_DRIVER = 0x28,
    COMMON_QUEUE_DEVICE = 0x30,
    COMMON_QUEUE_NOTIFY_DATA = 0x38,
    COMMON_QUEUE_RESET = 0x3a,
    COMMON_SIZE = 0x3c,
};

struct virtio_pci {
    struct device dev;
    struct pci_func func;
    struct pci_msix msix;
    struct virtio *v;
    struct virtio_doorbell *bells; /* or NULL */
    unsigned cfg_cap;              /* VIRTIO_PCI_CAP_PCI_CFG's offset in configuration space */

    _Atomic uint32_t device_feature_select, driver_feature_select;
    _Atomic uint16_t queue_select, config_vector;
    uint8_t isr; /* under the core's lock */
};

/* ---- interrupts ---- */

static void interrupt(struct virtio_pci *p, uint16_t vector, uint8_t isr)
{
    if (pci_msix_send(&p->msix, vector))
        return;
    virtio_lock(p->v);
    p->isr |= isr;
    pci_func_set_intx(&p->func, true);
    virtio_unlock(p->v);
}

static void queue_interrupt(struct device *dev, uint16_t vector)
{
    interrupt((struct virtio_pci *)dev, vector, ISR_QUEUE);
}

static void config_interrupt(struct device *dev)
{
    struct virtio_pci *p = (struct virtio_pci *)dev;

    interrupt(p, atomic_load(&p->config_vector), ISR_CONFIG);
}

/* 4.1.4.5: reading takes the interrupt back. */
static uint8_t read_isr(struct virtio_pci *p)
{
    virtio_lock(p->v);
    uint8_t isr = p->isr;
    p->isr = 0;
    if (isr)
        pci_func_set_intx(&p->func, false);
    virtio_unlock(p->v);
    return isr;
}

/* The guest's reset: the transport's registers go with the device's; PCI configuration and the MSI-X table stay. */
static void transport_reset(struct device *dev)
{
    struct virtio_pci *p = (struct virtio_pci *)dev;

    p->device_feature_select = p->driver_feature_select = 0;
    p->queue_select = 0;
    atomic_store(&p->config_vector, NO_VECTOR);
    p->isr = 0;
    pci_func_set_intx(&p->func, false);
}

static const struct virtio_transport transport = {
    .queue_interrupt = queue_interrupt,
    .config_interrupt = config_interrupt,
    .reset = transport_reset,
};

/* ---- common configuration ---- */

static struct virtq *selected(struct virtio_pci *p)
{
    unsigned n = atomic_load(&p->queue_select);

    return n < p->v->n_queues ? p->v->queues[n] : NULL;
}

static uint64_t read_queue_locked(struct virtio_pci *p, unsigned field)
{
    struct virtq *q = selected(p);

    if (!q)
        return 0; /* 4.1.4.3.1: no such queue is one of size 0 */
    switch (field) {
    case COMMON_QUEUE_SIZE:
        return q->regs.size;
    case COMMON_QUEUE_VECTOR:
        return atomic_load(&q->vector);
    case COMMON_QUEUE_ENABLE:
        return q->regs.enabled;
    case COMMON_QUEUE_NOTIFY_OFF:
    case COMMON_QUEUE_NOTIFY_DATA:
        return q->n;
    case COMMON_QUEUE_DESC:
        return q->regs.desc;
    case COMMON_QUEUE_DRIVER:
        return q->regs.driver;
    case COMMON_QUEUE_DEVICE:
        return q->regs.device;
    default:
        return 0;
    }
}

/* A whole field. */
static uint64_t read_field(struct virtio_pci *p, unsigned field)
{
    uint64_t val;

    switch (field) {
    case COMMON_DEVICE_FEATURE_SELECT:
        return p->device_feature_select;
    case COMMON_DEVICE_FEATURE:
        val = atomic_load(&p->device_feature_select);
        return val < 2 ? virtio_offered(p->v) >> (32 * val) & UINT32_MAX : 0;
    case COMMON_DRIVER_FEATURE_SELECT:
        return p->driver_feature_select;
    case COMMON_DRIVER_FEATURE:
        return virtio_get_driver_features(p->v, p->driver_feature_select);
    case COMMON_CONFIG_VECTOR:
        return atomic_load(&p->config_vector);
    case COMMON_NUM_QUEUES:
        return p->v->n_queues;
    case COMMON_STATUS:
        return virtio_get_status(p->v);
    case COMMON_GENERATION:
        return virtio_get_generation(p->v);
    case COMMON_QUEUE_SELECT:
        return p->queue_select;
    default:
        virtio_lock(p->v);
        val = read_queue_locked(p, field);
        virtio_unlock(p->v);
        return val;
    }
}

/* A vector that is not there reads back as none, which tells the driver (4.1.5.1.2). */
static uint16_t checked_vector(const struct virtio_pci *p, uint64_t val)
{
    return val < p->msix.n ? (uint16_t)val : NO_VECTOR;
}

/* Addresses may come in halves; `field` begins at the one or the other. */
static void write_address(uint64_t *addr, unsigned half, unsigned len, uint64_t val)
{
    if (len == 8)
        *addr = val;
    else if (half == 0)
        *addr = (*addr & ~UINT64_C(0xffffffff)) | (uint32_t)val;
    else
        *addr = (uint32_t)*addr | val << 32;
}

static void write_size(struct virtio_pci *p, struct virtq *q, uint64_t val)
{
    if (val && val <= p->v->queue_size)
        q->regs.size = (uint16_t)val;
}

/* Of a queue that is not enabled yet. */
static void write_queue_locked(struct virtio_pci *p, struct virtq *q, unsigned off, unsigned len, uint64_t val)
{
    switch (off & ~7u) {
    case COMMON_QUEUE_DESC:
        write_address(&q->regs.desc, off & 7, len, val);
        return;
    case COMMON_QUEUE_DRIVER:
        write_address(&q->regs.driver, off & 7, len, val);
        return;
    case COMMON_QUEUE_DEVICE:
        write_address(&q->regs.device, off & 7, len, val);
        return;
    default:
        break;
    }
    if (off == COMMON_QUEUE_SIZE)
        write_size(p, q, val);
    else if (off == COMMON_QUEUE_ENABLE && val == 1)
        q->regs.enabled = true;
}

static void write_selected(struct virtio_pci *p, unsigned off, unsigned len, uint64_t val)
{
    virtio_lock(p->v);
    struct virtq *q = selected(p);
    if (q && off == COMMON_QUEUE_VECTOR)
        atomic_store(&q->vector, checked_vector(p, val));
    else if (q && virtio_configurable_locked(p->v, q->n))
        write_queue_locked(p, q, off, len, val);
    virtio_unlock(p->v);
}

static void write_field(struct virtio_pci *p, unsigned off, unsigned len, uint64_t val)
{
    switch (off) {
    case COMMON_DEVICE_FEATURE_SELECT:
        p->device_feature_select = (uint32_t)val;
        break;
    case COMMON_DRIVER_FEATURE_SELECT:
        p->driver_feature_select = (uint32_t)val;
        break;
    case COMMON_DRIVER_FEATURE:
        virtio_set_driver_features(p->v, p->driver_feature_select, (uint32_t)val);
        break;
    case COMMON_CONFIG_VECTOR:
        atomic_store(&p->config_vector, checked_vector(p, val));
        break;
    case COMMON_STATUS:
        virtio_set_status(p->v, (uint8_t)val);
        break;
    case COMMON_QUEUE_SELECT:
        p->queue_select = (uint16_t)val;
        break;
    default:
        write_selected(p, off, len, val);
        break;
    }
}

/* Width of the field that begins at `off`; 0 where none does. */
static unsigned field_width(unsigned off)
{
    switch (off) {
    case COMMON_STATUS:
    case COMMON_GENERATION:
        return 1;
    case COMMON_DEVICE_FEATURE_SELECT:
    case COMMON_DEVICE_FEATURE:
    case COMMON_DRIVER_FEATURE_SELECT:
    case COMMON_DRIVER_FEATURE:
        return 4;
    case COMMON_QUEUE_DESC:
    case COMMON_QUEUE_DRIVER:
    case COMMON_QUEUE_DEVICE:
        return 8;
    default:
        return off >= COMMON_CONFIG_VECTOR && off < COMMON_SIZE && off % 2 == 0 ? 2 : 0;
    }
}

/* The driver uses a field's own width, or 32 bits for 64-bit ones (4.1.3.1); what does not is not served. */
static uint64_t read_common(struct virtio_pci *p, uint64_t off, unsigned len)
{
    bool upper = off >= COMMON_QUEUE_DESC && off < COMMON_QUEUE_NOTIFY_DATA && off % 8 == 4;
    unsigned field = (unsigned)off - (upper ? 4 : 0), width = off < COMMON_SIZE ? field_width(field) : 0;

    if (len == width && !upper)
        return read_field(p, field);
    if (width == 8 && len == 4)
        return read_field(p, field) >> (upper ? 32 : 0) & UINT32_MAX;
    return ones_mask(len);
}

static void write_common(struct virtio_pci *p, uint64_t off, unsigned len, uint64_t val)
{
    bool upper = off >= COMMON_QUEUE_DESC && off < COMMON_QUEUE_NOTIFY_DATA && off % 8 == 4;
    unsigned width = off < COMMON_SIZE ? field_width((unsigned)off - (upper ? 4 : 0)) : 0;

    if ((len == width && !upper) || (width == 8 && len == 4))
        write_field(p, (unsigned)off, len, val);
}

/* ---- the BAR ---- */

static uint64_t bar_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct virtio_pci *p = opaque;
    uint64_t at = off % BAR_PAGE;

    switch (off / BAR_PAGE) {
    case PAGE_COMMON:
        return read_common(p, at, len);
    case PAGE_ISR:
        return at == 0 ? read_isr(p) : 0;
    case PAGE_DEVICE:
        return virtio_config_read(p->v, (unsigned)at, len);
    case PAGE_TABLE:
        return pci_msix_table_read(&p->msix, at, len);
    case PAGE_PBA:
        return pci_msix_pba_read(&p->msix, at, len);
    default:
        return ones_mask(len);
    }
}

static void bar_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct virtio_pci *p = opaque;
    uint64_t at = off % BAR_PAGE;

    switch (off / BAR_PAGE) {
    case PAGE_COMMON:
        write_common(p, at, len, val);
        break;
    case PAGE_DEVICE:
        virtio_config_write(p->v, (unsigned)at, len, val);
        break;
    case PAGE_NOTIFY:
        virtio_kick(p->v, (unsigned)at / NOTIFY_STEP);
        break;
    case PAGE_TABLE:
        pci_msix_table_write(&p->msix, at, len, val);
        break;
    default:
        break;
    }
}

/* The notification addresses go with the BAR. */
static void bar_moved(struct pci_func *func, unsigned n, bool mapped)
{
    struct virtio_pci *p = func->opaque;

    if (n == BAR)
        virtio_doorbell_place(p->bells, func->bars[n].region.base + PAGE_NOTIFY * BAR_PAGE, NOTIFY_STEP, mapped);
}

/* ---- configuration space ---- */

/* Where the window of VIRTIO_PCI_CAP_PCI_CFG points (4.1.4.9): aligned, within the BAR, 1, 2 or 4 bytes. */
static bool cfg_window(struct virtio_pci *p, uint32_t *off, unsigned *len)
{
    *off = pci_func_get(&p->func, p->cfg_cap + CAP_OFFSET, 4);
    *len = pci_func_get(&p->func, p->cfg_cap + CAP_LENGTH, 4);
    return pci_func_get(&p->func, p->cfg_cap + CAP_BAR, 1) == BAR && (*len == 1 || *len == 2 || *len == 4) &&
           *off % *len == 0 && *off < BAR_SIZE;
}

static bool touches_cfg_data(const struct virtio_pci *p, unsigned off, unsigned len)
{
    unsigned data = p->cfg_cap + CAP_EXTRA;

    return off < data + CFG_DATA_BYTES && off + len > data;
}

static void config_reading(struct pci_func *func, unsigned off, unsigned len)
{
    struct virtio_pci *p = func->opaque;
    uint32_t at;
    unsigned width;

    if (touches_cfg_data(p, off, len) && cfg_window(p, &at, &width))
        pci_func_put(func, p->cfg_cap + CAP_EXTRA, width, (uint32_t)bar_read(p, 0, at, width));
}

static void config_written(struct pci_func *func, unsigned off, unsigned len)
{
    struct virtio_pci *p = func->opaque;
    uint32_t at;
    unsigned width;

    pci_msix_written(&p->msix);
    virtio_set_master(p->v, pci_func_get(func, PCI_COMMAND, 2) & PCI_COMMAND_MASTER);
    if (touches_cfg_data(p, off, len) && cfg_window(p, &at, &width))
        bar_write(p, 0, at, width, pci_func_get(func, p->cfg_cap + CAP_EXTRA, 4) & ones_mask(width));
}

/* extra: bytes behind struct virtio_pci_cap. Returns the capability's offset. */
static int add_cap(struct virtio_pci *p, uint8_t type, unsigned page, uint32_t length, unsigned extra)
{
    int at = pci_func_add_cap(&p->func, PCI_CAP_VENDOR, CAP_SIZE + extra);

    if (at < 0)
        return at;
    pci_func_set(&p->func, (unsigned)at + CAP_LEN, 1, CAP_SIZE + extra, 0);
    pci_func_set(&p->func, (unsigned)at + CAP_TYPE, 1, type, 0);
    pci_func_set(&p->func, (unsigned)at + CAP_BAR, 1, BAR, 0);
    pci_func_set(&p->func, (unsigned)at + CAP_OFFSET, 4, page * BAR_PAGE, 0);
    pci_func_set(&p->func, (unsigned)at + CAP_LENGTH, 4, length, 0);
    return at;
}

static int add_caps(struct virtio_pci *p)
{
    const struct virtio *v = p->v;
    unsigned config_len = (unsigned)align_up(v->core->config_len, 4);

    int r = add_cap(p, CAP_COMMON, PAGE_COMMON, COMMON_SIZE, 0);
    if (r >= 0)
        r = add_cap(p, CAP_ISR, PAGE_ISR, 1, 0);
    if (r >= 0 && config_len)
        r = add_cap(p, CAP_DEVICE, PAGE_DEVICE, config_len, 0);
    if (r >= 0)
        r = add_cap(p, CAP_NOTIFY, PAGE_NOTIFY, NOTIFY_STEP * v->n_queues, 4);
    if (r >= 0)
        pci_func_set(&p->func, (unsigned)r + CAP_EXTRA, 4, NOTIFY_STEP, 0);
    if (r >= 0)
        r = add_cap(p, CAP_PCI, 0, 0, CFG_DATA_BYTES);
    if (r < 0)
        return r;
    p->cfg_cap = (unsigned)r;
    pci_func_set(&p->func, p->cfg_cap + CAP_BAR, 1, 0, 0xff);
    pci_func_set(&p->func, p->cfg_cap + CAP_OFFSET, 4, 0, UINT32_MAX);
    pci_func_set(&p->func, p->cfg_cap + CAP_LENGTH, 4, 0, UINT32_MAX);
    pci_func_set(&p->func, p->cfg_cap + CAP_EXTRA, 4, 0, UINT32_MAX);
    return pci_msix_init(&p->msix, &p->func, &p->dev.env->msi, v->n_queues + 1, BAR, PAGE_TABLE * BAR_PAGE,
                         PAGE_PBA * BAR_PAGE);
}

/* ---- the device ---- */

static void virtio_pci_reset(struct device *dev)
{
    struct virtio_pci *p = (struct virtio_pci *)dev;

    virtio_set_master(p->v, false);
    virtio_reset(p->v);
    pci_func_reset(&p->func);
    pci_msix_reset(&p->msix);
}

static int virtio_pci_state(struct device *dev, struct stream *s)
{
    struct virtio_pci *p = (struct virtio_pci *)dev;
    uint32_t device_select = p->device_feature_select, driver_select = p->driver_feature_select;
    uint16_t queue_select = p->queue_select, config_vector = p->config_vector;

    virtio_pause(p->v);
    stream_section(s, "virtio-pci", 1);
    pci_func_state(&p->func, s);
    pci_msix_state(&p->msix, s);
    stream_u32(s, &device_select);
    stream_u32(s, &driver_select);
    stream_u16(s, &queue_select);
    stream_u16(s, &config_vector);
    stream_u8(s, &p->isr);
    p->device_feature_select = device_select;
    p->driver_feature_select = driver_select;
    p->queue_select = queue_select;
    p->config_vector = checked_vector(p, config_vector);
    if (!s->error)
        s->error = virtio_state(p->v, s);
    virtio_set_master(p->v, pci_func_get(&p->func, PCI_COMMAND, 2) & PCI_COMMAND_MASTER);
    virtio_resume(p->v);
    return s->error;
}

static int virtio_pci_open(struct device *dev, const void *conf, struct err *err)
{
    struct virtio_pci *p = (struct virtio_pci *)dev;
    const struct virtio_pci_conf *c = conf;
    const struct bus_region bar = {.size = BAR_SIZE, .read = bar_read, .write = bar_write, .opaque = p};
    const struct virtio_type *type = c->type;

    pci_func_init(&p->func, VENDOR_ID, FIRST_DEVICE + type->id, type->pci_class, REVISION);
    pci_func_set(&p->func, PCI_SUBSYSTEM_VENDOR_ID, 2, VENDOR_ID, 0);
    pci_func_set(&p->func, PCI_SUBSYSTEM_ID, 2, FIRST_DEVICE + type->id, 0);
    pci_func_set(&p->func, PCI_INTERRUPT_PIN, 1, 1, 0);
    pci_func_set_bar(&p->func, BAR, PCI_BAR_MEM64, &bar);
    p->func.written = config_written;
    p->func.reading = config_reading;
    p->func.moved = bar_moved;
    p->func.opaque = p;
    int r = virtio_open(&p->v, type, c->conf, dev, &transport, c->io, c->name, err);
    if (r < 0)
        return r;
    r = add_caps(p);
    if (r < 0) {
        err_set(err, r, "%s: PCI capabilities: %s", c->name, strerror(-r));
        goto close;
    }
    p->bells = virtio_doorbell_open(p->v);
    r = pci_add(dev->env->pci, &p->func, c->devfn, err);
    if (r < 0)
        goto fini_msix;
    return 0;

fini_msix:
    virtio_doorbell_close(p->bells);
    pci_msix_fini(&p->msix);
close:
    virtio_close(p->v);
    return r;
}

/* Off the bus first: no vCPU finds it any more. */
static void virtio_pci_close(struct device *dev)
{
    struct virtio_pci *p = (struct virtio_pci *)dev;

    pci_remove(&p->func);
    virtio_doorbell_close(p->bells);
    virtio_close(p->v);
    pci_msix_fini(&p->msix);
}

struct virtio *virtio_pci_of(struct device *dev)
{
    return ((struct virtio_pci *)dev)->v;
}

void virtio_pci_pause(struct device *dev)
{
    virtio_pause(((struct virtio_pci *)dev)->v);
}

void virtio_pci_resume(struct device *dev)
{
    virtio_resume(((struct virtio_pci *)dev)->v);
}

const struct device_type virtio_pci_type = {
    .name = "virtio-pci",
    .size = sizeof(struct virtio_pci),
    .open = virtio_pci_open,
    .reset = virtio_pci_reset,
    .state = virtio_pci_state,
    .close = virtio_pci_close,
};
