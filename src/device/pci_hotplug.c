#include "device/pci_hotplug.h"

#include "device/acpi_pm.h"

struct pci_hotplug {
    struct device dev;
    struct pci_hotplug_conf conf;
    uint32_t up, down;
    uint32_t asked; /* slots that a write to EJECT may empty */
};

static uint64_t pci_hotplug_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;
    uint8_t regs[PCI_HOTPLUG_SIZE + 8] = {0};
    uint64_t val = 0;

    store_le32(regs + PCI_HOTPLUG_UP, h->up);
    store_le32(regs + PCI_HOTPLUG_DOWN, h->down);
    memcpy(&val, regs + off, len);
    return val;
}

static void eject(struct pci_hotplug *h, uint32_t slots)
{
    slots &= h->asked;
    h->asked &= ~slots;
    h->down &= ~slots;
    for (unsigned slot = 0; slot < 32; slot++)
        if (slots & UINT32_C(1) << slot)
            h->conf.ejected(h->conf.opaque, slot);
}

/* Whole dwords only: the methods write nothing else. */
static void pci_hotplug_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;

    if (len != 4)
        return;
    switch (off) {
    case PCI_HOTPLUG_UP:
        h->up &= ~(uint32_t)val;
        break;
    case PCI_HOTPLUG_DOWN:
        h->down &= ~(uint32_t)val;
        break;
    case PCI_HOTPLUG_EJECT:
        eject(h, (uint32_t)val);
        break;
    default:
        break;
    }
}

void pci_hotplug_added(struct device *dev, unsigned slot)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;

    device_lock(dev);
    h->up |= UINT32_C(1) << slot;
    h->down &= ~(UINT32_C(1) << slot); /* what was asked for there was another's */
    h->asked &= ~(UINT32_C(1) << slot);
    device_unlock(dev);
    acpi_pm_raise_gpe(h->conf.acpi_pm, PCI_HOTPLUG_GPE);
}

void pci_hotplug_ask(struct device *dev, unsigned slot)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;

    device_lock(dev);
    h->down |= UINT32_C(1) << slot;
    h->asked |= UINT32_C(1) << slot;
    device_unlock(dev);
    acpi_pm_raise_gpe(h->conf.acpi_pm, PCI_HOTPLUG_GPE);
}

/* What was to be let go of still is: a guest that starts anew finds it there, and is asked again by whoever wants it. */
static void pci_hotplug_reset(struct device *dev)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;

    h->up = h->down = h->asked = 0;
}

static int pci_hotplug_state(struct device *dev, struct stream *s)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;

    stream_section(s, "pci_hotplug", 1);
    stream_u32(s, &h->up);
    stream_u32(s, &h->down);
    stream_u32(s, &h->asked);
    return s->error;
}

static int pci_hotplug_open(struct device *dev, const void *conf, struct err *err)
{
    struct pci_hotplug *h = (struct pci_hotplug *)dev;

    h->conf = *(const struct pci_hotplug_conf *)conf;
    return device_map(dev, dev->env->pio, 0, PCI_HOTPLUG_PORT, PCI_HOTPLUG_SIZE, err);
}

const struct device_type pci_hotplug_type = {
    .name = "pci_hotplug",
    .size = sizeof(struct pci_hotplug),
    .open = pci_hotplug_open,
    .read = pci_hotplug_read,
    .write = pci_hotplug_write,
    .reset = pci_hotplug_reset,
    .state = pci_hotplug_state,
};
