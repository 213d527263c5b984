#include "device/lpc.h"

#include "core/pci.h"
#include "device/acpi_pm.h"

enum {
    REG_PMBASE = 0x40,
    REG_ACPI_CNTL = 0x44,
    REG_PIRQA_ROUT = 0x60, /* four bytes; PIRQE# to PIRQH# from 0x68 */
    REG_SIRQ_CNTL = 0x64,
    REG_PIRQE_ROUT = 0x68,
    REG_LPC_IO_DEC = 0x80,
    REG_LPC_EN = 0x82,
    REG_GEN1_DEC = 0x84,
    REG_BIOS_CNTL = 0xdc,
    REG_RCBA = 0xf0,
};
enum { ACPI_CNTL_EN = 1 << 7, PIRQ_NOT_ROUTED = 1 << 7 };

#define PMBASE_WRITABLE 0x0000ff80u
#define RCBA_WRITABLE   0xffffc001u
#define RCBA_SIZE       (16 * KIB)
#define RCBA_ENABLE     1u
#define ISA_ROUTABLE    0xdef8u /* IRQs that a PIRQ may go to: not 0-2, 8 and 13 */
#define FIRST_ROUTE     10      /* PIRQA#, C#, E#, G#; the others to the next */

struct lpc {
    struct device dev;
    struct pci_func func;
    struct lpc_conf conf;
    bool pirq[LPC_N_PIRQS];
    uint64_t rcba; /* mapped there, or 0 */
};

static unsigned route_reg(unsigned pirq)
{
    return pirq < 4 ? REG_PIRQA_ROUT + pirq : REG_PIRQE_ROUT + pirq - 4;
}

/* The PIC's inputs: each the OR of the PIRQs routed to it. With the device's lock held. */
static void update_pic(struct lpc *l)
{
    unsigned up = 0;

    for (unsigned i = 0; i < LPC_N_PIRQS; i++) {
        uint32_t route = pci_func_get(&l->func, route_reg(i), 1);
        if (l->pirq[i] && !(route & PIRQ_NOT_ROUTED))
            up |= 1u << (route & 15);
    }
    for (unsigned irq = 0; irq < 16; irq++)
        if (ISA_ROUTABLE & 1u << irq)
            irq_set(&l->conf.pic[irq], up & 1u << irq);
}

/* The IOAPIC sees every PIRQ, wherever the PIC's are routed. */
static void on_pirq(void *opaque, unsigned n, bool level)
{
    struct lpc *l = opaque;

    device_lock(&l->dev);
    l->pirq[n] = level;
    irq_set(&l->conf.gsi[n], level);
    update_pic(l);
    device_unlock(&l->dev);
}

/* Chipset configuration registers: none has a function here, and reserved ones read as 0 (ICH9 datasheet 10.1). */
static uint64_t lpc_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    return 0;
}

static void lpc_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
}

static void update_rcba(struct lpc *l)
{
    uint32_t reg = pci_func_get(&l->func, REG_RCBA, 4);
    uint64_t base = reg & RCBA_ENABLE ? align_down(reg, RCBA_SIZE) : 0;
    struct err err;

    if (base == l->rcba)
        return;
    if (l->rcba)
        bus_remove(l->dev.env->mmio, l->rcba);
    l->rcba = base && device_map(&l->dev, l->dev.env->mmio, 0, base, RCBA_SIZE, &err) == 0 ? base : 0;
}

/* All that follows from the registers. With the device's lock held. */
static void update(struct lpc *l)
{
    bool enabled = pci_func_get(&l->func, REG_ACPI_CNTL, 1) & ACPI_CNTL_EN;
    uint16_t base = (uint16_t)(pci_func_get(&l->func, REG_PMBASE, 4) & PMBASE_WRITABLE);

    acpi_pm_move(l->conf.acpi_pm, enabled ? base : 0);
    update_rcba(l);
    update_pic(l);
}

static void lpc_written(struct pci_func *func, unsigned off, unsigned len)
{
    struct lpc *l = func->opaque;

    device_lock(&l->dev);
    update(l);
    device_unlock(&l->dev);
}

static void lpc_reset(struct device *dev)
{
    struct lpc *l = (struct lpc *)dev;

    pci_func_reset(&l->func);
    update(l);
}

static int lpc_state(struct device *dev, struct stream *s)
{
    struct lpc *l = (struct lpc *)dev;

    stream_section(s, "lpc", 1);
    pci_func_state(&l->func, s);
    for (unsigned i = 0; i < LPC_N_PIRQS; i++)
        stream_bool(s, &l->pirq[i]);
    if (s->loading && !s->error)
        update(l);
    return s->error;
}

static int lpc_open(struct device *dev, const void *conf, struct err *err)
{
    struct lpc *l = (struct lpc *)dev;
    struct pci_func *f = &l->func;

    l->conf = *(const struct lpc_conf *)conf;
    pci_func_init(f, 0x8086, 0x2918, 0x060100, 0x02);
    pci_func_set(f, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0); /* hard-wired */
    pci_func_set(f, PCI_HEADER_TYPE, 1, PCI_HEADER_MULTIFUNCTION, 0);
    pci_func_set(f, REG_PMBASE, 4, l->conf.pm_base | 1u, PMBASE_WRITABLE);
    pci_func_set(f, REG_ACPI_CNTL, 1, ACPI_CNTL_EN, ACPI_CNTL_EN); /* SCI on IRQ 9 is wired */
    for (unsigned i = 0; i < LPC_N_PIRQS; i++)
        pci_func_set(f, route_reg(i), 1, FIRST_ROUTE + i % 2, 0x8f);
    pci_func_set(f, REG_SIRQ_CNTL, 1, 0x10, 0xff);
    pci_func_set(f, REG_LPC_IO_DEC, 2, 0, 0x1377);
    pci_func_set(f, REG_LPC_EN, 2, 0, 0x3f0f);
    for (unsigned i = 0; i < 4; i++)
        pci_func_set(f, REG_GEN1_DEC + 4 * i, 4, 0, 0x00fcfffd);
    pci_func_set(f, REG_BIOS_CNTL, 1, 0, 0x01);
    pci_func_set(f, REG_RCBA, 4, (uint32_t)l->conf.rcba | RCBA_ENABLE, RCBA_WRITABLE);
    f->written = lpc_written;
    f->opaque = l;
    int r = pci_add(dev->env->pci, f, PCI_DEVFN(31, 0), err);
    for (unsigned i = 0; i < LPC_N_PIRQS && r == 0; i++)
        pci_bus_set_pirq(dev->env->pci, i, &(struct irq_line){.set = on_pirq, .opaque = l, .n = i});
    return r;
}

static void lpc_close(struct device *dev)
{
    struct lpc *l = (struct lpc *)dev;

    for (unsigned i = 0; i < LPC_N_PIRQS; i++)
        pci_bus_set_pirq(dev->env->pci, i, &(struct irq_line){0});
    if (l->rcba)
        bus_remove(dev->env->mmio, l->rcba);
    pci_remove(&l->func);
}

const struct device_type lpc_type = {
    .name = "lpc",
    .size = sizeof(struct lpc),
    .open = lpc_open,
    .read = lpc_read,
    .write = lpc_write,
    .reset = lpc_reset,
    .state = lpc_state,
    .close = lpc_close,
};
