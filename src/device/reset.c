#include "device/reset.h"

#include "core/pci.h"

#define PORT92 0x92

enum { REGION_RST_CNT, REGION_PORT92 };
enum { RST_CNT_RST_CPU = 1 << 2, RST_CNT_MASK = 0x0e };
enum { PORT92_INIT_NOW = 1 << 0, PORT92_A20 = 1 << 1 };

struct reset {
    struct device dev;
    uint8_t rst_cnt, port92;
};

static uint64_t reset_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    const struct reset *r = (struct reset *)dev;

    return region == REGION_RST_CNT ? r->rst_cnt : r->port92;
}

static void reset_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct reset *r = (struct reset *)dev;
    bool fire;

    /* Both reset on the bit's rise, whether a hard reset or an INIT of the processors is asked for. */
    if (region == REGION_RST_CNT) {
        fire = val & ~(uint64_t)r->rst_cnt & RST_CNT_RST_CPU;
        r->rst_cnt = val & RST_CNT_MASK;
    } else {
        fire = val & ~(uint64_t)r->port92 & PORT92_INIT_NOW;
        r->port92 = val & (PORT92_INIT_NOW | PORT92_A20);
    }
    if (fire)
        power_request(&dev->env->power, POWER_RESET, 0);
}

static void reset_reset(struct device *dev)
{
    struct reset *r = (struct reset *)dev;

    r->rst_cnt = 0;
    r->port92 = PORT92_A20;
}

static int reset_state(struct device *dev, struct stream *s)
{
    struct reset *r = (struct reset *)dev;

    stream_section(s, "reset", 1);
    stream_u8(s, &r->rst_cnt);
    stream_u8(s, &r->port92);
    return s->error;
}

static int reset_open(struct device *dev, const void *conf, struct err *err)
{
    struct bus *bus = dev->env->pci ? pci_bus_narrow_ports(dev->env->pci) : dev->env->pio;
    int r = device_map(dev, bus, REGION_RST_CNT, RESET_PORT, 1, err);

    return r < 0 ? r : device_map(dev, dev->env->pio, REGION_PORT92, PORT92, 1, err);
}

const struct device_type reset_type = {
    .name = "reset",
    .size = sizeof(struct reset),
    .open = reset_open,
    .read = reset_read,
    .write = reset_write,
    .reset = reset_reset,
    .state = reset_state,
};
