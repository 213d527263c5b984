#include "device/debugexit.h"

#define PORT 0xf4

static uint64_t debugexit_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    return 0;
}

/* An exit status has eight bits; the shift is done on what the guest wrote, and the low byte is what counts. */
static void debugexit_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    power_request(&dev->env->power, POWER_EXIT, (int)((val << 1 | 1) & 0xff));
}

static int debugexit_open(struct device *dev, const void *conf, struct err *err)
{
    return device_map(dev, dev->env->pio, 0, PORT, 4, err);
}

const struct device_type debugexit_type = {
    .name = "debugexit",
    .size = sizeof(struct device),
    .open = debugexit_open,
    .read = debugexit_read,
    .write = debugexit_write,
};
