#include "device/mch.h"

#include "core/pci.h"

enum { REG_PCIEXBAR = 0x60, REG_PAM0 = 0x90, N_PAM = 7, REG_SMRAM = 0x9d, REG_TOUUD = 0xa2, REG_TOLUD = 0xb0 };
enum { PCIEXBAR_ENABLE = 1 << 0, PCIEXBAR_LENGTH_SHIFT = 1 };
#define PCIEXBAR_WRITABLE UINT64_C(0x0000000ffc000007) /* bits 35:26, length, enable */

struct mch {
    struct device dev;
    struct pci_func func;
    uint64_t ecam_base; /* mapped there, or 0 */
};

/* The length field leaves 256, 128 or 64 MiB; a smaller window has more address bits. 3 is reserved: no window. */
static bool ecam_wanted(struct mch *m, uint64_t *base, uint64_t *size)
{
    uint64_t reg = pci_func_get(&m->func, REG_PCIEXBAR, 4) | (uint64_t)pci_func_get(&m->func, REG_PCIEXBAR + 4, 4)
                                                                 << 32;
    unsigned length = reg >> PCIEXBAR_LENGTH_SHIFT & 3;

    *size = 256 * MIB >> length;
    *base = align_down(reg & PCIEXBAR_WRITABLE, *size);
    return (reg & PCIEXBAR_ENABLE) && length < 3 && *base;
}

/* With the device's lock held. A window over something else is refused by the bus, and is not there then. */
static void update_ecam(struct mch *m)
{
    struct bus_region window = {.read = pci_ecam_read, .write = pci_ecam_write, .opaque = m->dev.env->pci};
    bool wanted = ecam_wanted(m, &window.base, &window.size);

    if (m->ecam_base)
        bus_remove(m->dev.env->mmio, m->ecam_base);
    m->ecam_base = wanted && bus_add(m->dev.env->mmio, &window) == 0 ? window.base : 0;
}

static void mch_written(struct pci_func *func, unsigned off, unsigned len)
{
    struct mch *m = func->opaque;

    if (off >= REG_PCIEXBAR + 8 || off + len <= REG_PCIEXBAR)
        return;
    device_lock(&m->dev);
    update_ecam(m);
    device_unlock(&m->dev);
}

static void mch_reset(struct device *dev)
{
    struct mch *m = (struct mch *)dev;

    pci_func_reset(&m->func);
    update_ecam(m);
}

static int mch_state(struct device *dev, struct stream *s)
{
    struct mch *m = (struct mch *)dev;

    stream_section(s, "mch", 1);
    pci_func_state(&m->func, s);
    if (s->loading && !s->error)
        update_ecam(m);
    return s->error;
}

static int mch_open(struct device *dev, const void *conf, struct err *err)
{
    struct mch *m = (struct mch *)dev;
    const struct mch_conf *c = conf;
    const struct ram *ram = dev->env->ram;
    uint64_t pciexbar = c->ecam_base | PCIEXBAR_ENABLE;

    pci_func_init(&m->func, 0x8086, 0x29c0, 0x060000, 0x02);
    pci_func_set(&m->func, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0); /* hard-wired */
    pci_func_set(&m->func, REG_PCIEXBAR, 4, (uint32_t)pciexbar, (uint32_t)PCIEXBAR_WRITABLE);
    pci_func_set(&m->func, REG_PCIEXBAR + 4, 4, (uint32_t)(pciexbar >> 32), (uint32_t)(PCIEXBAR_WRITABLE >> 32));
    for (unsigned i = 0; i < N_PAM; i++)
        pci_func_set(&m->func, REG_PAM0 + i, 1, 0x33, 0x33); /* read and write go to RAM */
    pci_func_set(&m->func, REG_SMRAM, 1, 0x02, 0x40);
    pci_func_set(&m->func, REG_TOLUD, 2, (uint32_t)(ram->low >> 20) << 4, 0xfff0);
    pci_func_set(&m->func, REG_TOUUD, 2, (uint32_t)((ram->high ? RAM_HIGH_BASE + ram->high : ram->low) >> 20), 0xffff);
    m->func.written = mch_written;
    m->func.opaque = m;
    return pci_add(dev->env->pci, &m->func, PCI_DEVFN(0, 0), err);
}

static void mch_close(struct device *dev)
{
    struct mch *m = (struct mch *)dev;

    if (m->ecam_base)
        bus_remove(dev->env->mmio, m->ecam_base);
    pci_remove(&m->func);
}

const struct device_type mch_type = {
    .name = "mch",
    .size = sizeof(struct mch),
    .open = mch_open,
    .reset = mch_reset,
    .state = mch_state,
    .close = mch_close,
};
