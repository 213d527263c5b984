#include "device/acpi_pm.h"

enum { REGION_BLOCK, REGION_SMI };

/* The block's dwords. */
enum { DW_PM1_EVT = 0, DW_PM1_CNT = 1, DW_TMR = 2, DW_GPE0_STS = 8, DW_GPE0_EN = 10, N_DW = ACPI_PM_SIZE / 4 };

enum { PM1_TMR = 1 << 0, PM1_GBL = 1 << 5, PM1_PWRBTN = 1 << 8, PM1_RTC = 1 << 10, PM1_WAK = 1 << 15 };
#define PM1_EN_MASK  (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC)
#define PM1_STS_MASK (PM1_EN_MASK | PM1_WAK)

enum { CNT_SCI_EN = 1 << 0, CNT_BM_RLD = 1 << 1, CNT_SLP_TYP_SHIFT = 10, CNT_SLP_TYP = 7 << 10, CNT_SLP_EN = 1 << 13 };
enum { SLP_TYP_S4 = 6 };

#define TMR_BITS 24 /* of the counter; its top bit's changes set TMROF_STS */

struct acpi_pm {
    struct device dev;
    struct irq_line sci;
    uint16_t base; /* mapped there, or 0 */

    uint16_t pm1_sts, pm1_en, pm1_cnt;
    uint64_t gpe0_sts, gpe0_en;
    uint8_t apm_cnt, apm_sts;
    uint64_t tmr_half; /* half periods of the counter that TMROF_STS has heard of */
    struct vtimer overflow;
};

static uint64_t tmr_ticks(struct acpi_pm *pm)
{
    return clock_ticks(clock_now(pm->dev.env->clock), ACPI_PM_TIMER_HZ);
}

/* Brings TMROF_STS up to date, and drives SCI. */
static void update(struct acpi_pm *pm)
{
    uint64_t half = tmr_ticks(pm) >> (TMR_BITS - 1);

    if (half != pm->tmr_half) {
        pm->tmr_half = half;
        pm->pm1_sts |= PM1_TMR;
    }
    if ((pm->pm1_en & PM1_TMR) && !(pm->pm1_sts & PM1_TMR))
        vtimer_set(&pm->overflow, clock_ticks_to_ns((half + 1) << (TMR_BITS - 1), ACPI_PM_TIMER_HZ));
    else
        vtimer_cancel(&pm->overflow);
    irq_set(&pm->sci,
            (pm->pm1_cnt & CNT_SCI_EN) && ((pm->pm1_sts & pm->pm1_en & PM1_EN_MASK) || (pm->gpe0_sts & pm->gpe0_en)));
}

static void on_overflow(void *opaque)
{
    struct acpi_pm *pm = opaque;

    device_lock(&pm->dev);
    update(pm);
    device_unlock(&pm->dev);
}

static uint32_t read_dword(struct acpi_pm *pm, unsigned dw)
{
    switch (dw) {
    case DW_PM1_EVT:
        return pm->pm1_sts | (uint32_t)pm->pm1_en << 16;
    case DW_PM1_CNT:
        return pm->pm1_cnt;
    case DW_TMR:
        return tmr_ticks(pm) & ((1u << TMR_BITS) - 1);
    case DW_GPE0_STS:
    case DW_GPE0_STS + 1:
        return (uint32_t)(pm->gpe0_sts >> (dw == DW_GPE0_STS ? 0 : 32));
    case DW_GPE0_EN:
    case DW_GPE0_EN + 1:
        return (uint32_t)(pm->gpe0_en >> (dw == DW_GPE0_EN ? 0 : 32));
    default:
        return 0;
    }
}

/* SLP_EN is a trigger and reads as 0. S4 is soft off to the hardware; S1 and S3 are not offered, so they do nothing. */
static void write_pm1_cnt(struct acpi_pm *pm, uint16_t val)
{
    unsigned type = (val & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT;

    pm->pm1_cnt = val & (CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP);
    if ((val & CNT_SLP_EN) && (type == ACPI_SLP_TYP_S5 || type == SLP_TYP_S4))
        power_request(&pm->dev.env->power, POWER_OFF, 0);
}

/* `mask`: the bytes written. Status bits are cleared by writing 1. */
static void write_dword(struct acpi_pm *pm, unsigned dw, uint32_t val, uint32_t mask)
{
    unsigned shift = dw & 1 ? 32 : 0;

    switch (dw) {
    case DW_PM1_EVT:
        pm->pm1_sts &= (uint16_t) ~(val & mask);
        pm->pm1_en = (uint16_t)((pm->pm1_en & ~(mask >> 16)) | ((val & mask) >> 16 & PM1_EN_MASK));
        break;
    case DW_PM1_CNT:
        write_pm1_cnt(pm, (uint16_t)((pm->pm1_cnt & ~mask) | (val & mask)));
        break;
    case DW_GPE0_STS:
    case DW_GPE0_STS + 1:
        pm->gpe0_sts &= ~((uint64_t)(val & mask) << shift);
        break;
    case DW_GPE0_EN:
    case DW_GPE0_EN + 1:
        pm->gpe0_en = (pm->gpe0_en & ~((uint64_t)mask << shift)) | (uint64_t)(val & mask) << shift;
        break;
    default:
        break;
    }
}

static uint64_t acpi_pm_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;

    if (region == REGION_SMI)
        return off == 0 ? pm->apm_cnt | (len > 1 ? (uint64_t)pm->apm_sts << 8 : 0) : pm->apm_sts;
    update(pm);
    uint8_t bytes[8];
    for (unsigned i = 0; i < len;) {
        unsigned in = (unsigned)(off + i) & 3, n = 4 - in < len - i ? 4 - in : len - i;
        uint32_t dword = read_dword(pm, (unsigned)(off + i) / 4);
        memcpy(bytes + i, (uint8_t *)&dword + in, n);
        i += n;
    }
    uint64_t val = 0;
    memcpy(&val, bytes, len);
    return val;
}

static void write_smi(struct acpi_pm *pm, uint64_t off, uint8_t val)
{
    if (off) {
        pm->apm_sts = val;
        return;
    }
    pm->apm_cnt = val;
    if (val == ACPI_ENABLE)
        pm->pm1_cnt |= CNT_SCI_EN;
    else if (val == ACPI_DISABLE)
        pm->pm1_cnt &= (uint16_t)~CNT_SCI_EN;
}

static void acpi_pm_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;

    update(pm); /* what the timer did before is what a status write may clear */
    for (unsigned i = 0; i < len;) {
        unsigned in = (unsigned)(off + i) & 3, n = 4 - in < len - i ? 4 - in : len - i;
        uint32_t part = (uint32_t)(val >> (8 * i)) & (uint32_t)ones_mask(n);
        if (region == REGION_SMI) {
            write_smi(pm, off + i, (uint8_t)part);
            n = 1;
        } else {
            write_dword(pm, (unsigned)(off + i) / 4, part << (8 * in), (uint32_t)ones_mask(n) << (8 * in));
        }
        i += n;
    }
    update(pm);
}

void acpi_pm_move(struct device *dev, uint16_t base)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;
    struct err err;

    device_lock(dev);
    if (base != pm->base) {
        if (pm->base)
            bus_remove(dev->env->pio, pm->base);
        /* Over another device it has no place; the guest that put it there misses it. */
        pm->base = base && device_map(dev, dev->env->pio, REGION_BLOCK, base, ACPI_PM_SIZE, &err) == 0 ? base : 0;
    }
    device_unlock(dev);
}

void acpi_pm_press_button(struct device *dev)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;

    device_lock(dev);
    pm->pm1_sts |= PM1_PWRBTN;
    update(pm);
    device_unlock(dev);
}

void acpi_pm_raise_gpe(struct device *dev, unsigned n)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;

    device_lock(dev);
    pm->gpe0_sts |= UINT64_C(1) << n;
    update(pm);
    device_unlock(dev);
}

static void acpi_pm_reset(struct device *dev)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;

    pm->pm1_sts = pm->pm1_en = pm->pm1_cnt = 0;
    pm->gpe0_sts = pm->gpe0_en = 0;
    pm->apm_cnt = pm->apm_sts = 0;
    pm->tmr_half = tmr_ticks(pm) >> (TMR_BITS - 1);
    update(pm);
}

static int acpi_pm_state(struct device *dev, struct stream *s)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;

    stream_section(s, "acpi_pm", 1);
    stream_u16(s, &pm->pm1_sts);
    stream_u16(s, &pm->pm1_en);
    stream_u16(s, &pm->pm1_cnt);
    stream_u64(s, &pm->gpe0_sts);
    stream_u64(s, &pm->gpe0_en);
    stream_u8(s, &pm->apm_cnt);
    stream_u8(s, &pm->apm_sts);
    stream_u64(s, &pm->tmr_half);
    if (s->loading && !s->error)
        update(pm);
    return s->error;
}

static int acpi_pm_open(struct device *dev, const void *conf, struct err *err)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;
    const struct acpi_pm_conf *c = conf;

    pm->sci = c->sci;
    int r = device_map(dev, dev->env->pio, REGION_SMI, ACPI_SMI_CMD, 2, err);
    if (r == 0)
        vtimer_init(&pm->overflow, dev->env->clock, on_overflow, pm);
    return r;
}

static void acpi_pm_close(struct device *dev)
{
    vtimer_fini(&((struct acpi_pm *)dev)->overflow);
}

const struct device_type acpi_pm_type = {
    .name = "acpi_pm",
    .size = sizeof(struct acpi_pm),
    .open = acpi_pm_open,
    .read = acpi_pm_read,
    .write = acpi_pm_write,
    .reset = acpi_pm_reset,
    .state = acpi_pm_state,
    .close = acpi_pm_close,
};
