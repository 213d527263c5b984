#include "machine/acpi.h"

#include <errno.h>

#include "device/acpi_pm.h"
#include "device/hpet.h"
#include "device/reset.h"
#include "machine/memmap.h"

/* Compiled from dsdt.asl by iasl: dsdt_aml_code[]. */
#include "dsdt.h"

#define TABLES_MAX (16 * KIB) /* all but the DSDT fit many times over */
#define HEADER     36
#define RSDP_SIZE  36
#define FADT_SIZE  276
#define FACS_SIZE  64
#define SCI_IRQ    9

/* Blocks under construction: tables one after another, from `base` in the guest. */
struct blob {
    uint8_t data[TABLES_MAX];
    uint64_t base;
    unsigned len;
};

enum gas_space { GAS_MEMORY = 0, GAS_IO = 1 };
enum gas_access { GAS_ANY = 0, GAS_BYTE = 1, GAS_WORD = 2, GAS_DWORD = 3 };

static uint8_t checksum(const uint8_t *p, unsigned len)
{
    uint8_t sum = 0;

    for (unsigned i = 0; i < len; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

/* A table of `len` zeroed bytes with its header, aligned to 64 bytes; its caller fills it and seals it. */
static uint8_t *begin(struct blob *b, const char *signature, uint8_t revision, unsigned len)
{
    b->len = (unsigned)align_up(b->len, 64);
    uint8_t *t = b->data + b->len;

    memcpy(t, signature, 4);
    store_le32(t + 4, len);
    t[8] = revision;
    memcpy(t + 10, "VIREO ", 6);
    memcpy(t + 16, "VIREOQ35", 8);
    store_le32(t + 24, 1);
    memcpy(t + 28, "VIRO", 4);
    store_le32(t + 32, 1);
    b->len += len;
    return t;
}

/* Returns its guest-physical address. */
static uint64_t seal(const struct blob *b, uint8_t *t)
{
    t[9] = 0;
    t[9] = checksum(t, load_le32(t + 4));
    return b->base + (uint64_t)(t - b->data);
}

/* Generic address structure (ACPI 6.5 section 5.2.3.2). */
static void put_gas(uint8_t *p, enum gas_space space, uint8_t bits, enum gas_access access, uint64_t address)
{
    p[0] = (uint8_t)space;
    p[1] = bits;
    p[2] = 0;
    p[3] = (uint8_t)access;
    store_le64(p + 4, address);
}

static uint64_t add_facs(struct blob *b)
{
    b->len = (unsigned)align_up(b->len, 64);
    uint8_t *t = b->data + b->len;

    memcpy(t, "FACS", 4);
    store_le32(t + 4, FACS_SIZE);
    t[32] = 2; /* version */
    b->len += FACS_SIZE;
    return b->base + (uint64_t)(t - b->data);
}

/* FADT revision 6 (ACPI 6.5 section 5.2.9); both the old fields and the extended ones. */
static uint64_t add_fadt(struct blob *b, uint64_t facs, uint64_t dsdt)
{
    enum { PROC_C1_WBINVD = 1 << 0 | 1 << 2, NO_SLP_BUTTON = 1 << 5, NO_FIXED_RTC = 1 << 6, RESET_REG_SUP = 1 << 10 };
    enum { LEGACY_DEVICES = 1 << 0, HAS_8042 = 1 << 1, NO_VGA = 1 << 2 };
    uint8_t *t = begin(b, "FACP", 6, FADT_SIZE);
    const uint32_t pm = MEMMAP_PM_PORT;

    store_le32(t + 36, (uint32_t)facs);
    store_le32(t + 40, (uint32_t)dsdt);
    store_le16(t + 46, SCI_IRQ);
    store_le32(t + 48, ACPI_SMI_CMD);
    t[52] = ACPI_ENABLE;
    t[53] = ACPI_DISABLE;
    store_le32(t + 56, pm + ACPI_PM1_EVT);
    store_le32(t + 64, pm + ACPI_PM1_CNT);
    store_le32(t + 76, pm + ACPI_PM_TMR);
    store_le32(t + 80, pm + ACPI_GPE0);
    t[88] = 4; /* lengths: PM1 event, PM1 control, PM timer, GPE0 */
    t[89] = 2;
    t[91] = 4;
    t[92] = ACPI_GPE0_LEN;
    store_le16(t + 96, 0xfff); /* no C2 and no C3 */
    store_le16(t + 98, 0xfff);
    t[108] = 0x32; /* the century's place in the CMOS RAM */
    store_le16(t + 109, LEGACY_DEVICES | HAS_8042 | NO_VGA);
    store_le32(t + 112, PROC_C1_WBINVD | NO_SLP_BUTTON | NO_FIXED_RTC | RESET_REG_SUP);
    put_gas(t + 116, GAS_IO, 8, GAS_BYTE, RESET_PORT);
    t[128] = RESET_VALUE;
    t[131] = 5;                /* minor version */
    store_le64(t + 140, dsdt); /* X_FIRMWARE_CTRL stays 0: the 32-bit one holds */
    put_gas(t + 148, GAS_IO, 32, GAS_WORD, pm + ACPI_PM1_EVT);
    put_gas(t + 172, GAS_IO, 16, GAS_WORD, pm + ACPI_PM1_CNT);
    put_gas(t + 208, GAS_IO, 32, GAS_DWORD, pm + ACPI_PM_TMR);
    put_gas(t + 220, GAS_IO, ACPI_GPE0_LEN * 8, GAS_BYTE, pm + ACPI_GPE0);
    return seal(b, t);
}

/* An interrupt source override (ACPI 6.5 section 5.2.12.5). */
static void put_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    p[0] = 2;
    p[1] = 10;
    p[3] = irq;
    store_le32(p + 4, gsi);
    store_le16(p + 8, flags);
}

/* MADT (ACPI 6.5 section 5.2.12): local APICs, the IOAPIC, where ISA interrupts differ from it, and NMI on LINT1. */
static uint64_t add_madt(struct blob *b, unsigned n_cpus)
{
    enum { LAPIC_LEN = 8, IOAPIC_LEN = 12, OVERRIDE_LEN = 10, NMI_LEN = 6 };
    enum { PCAT_COMPAT = 1, ENABLED = 1, LEVEL_HIGH = 0xd };
    uint8_t *t = begin(b, "APIC", 5, HEADER + 8 + n_cpus * LAPIC_LEN + IOAPIC_LEN + 2 * OVERRIDE_LEN + NMI_LEN);
    uint8_t *p = t + HEADER + 8;

    store_le32(t + HEADER, (uint32_t)MEMMAP_LAPIC);
    store_le32(t + HEADER + 4, PCAT_COMPAT);
    for (unsigned i = 0; i < n_cpus; i++, p += LAPIC_LEN) {
        p[1] = LAPIC_LEN;
        p[2] = p[3] = (uint8_t)i;
        store_le32(p + 4, ENABLED);
    }
    p[0] = 1;
    p[1] = IOAPIC_LEN;
    store_le32(p + 4, (uint32_t)MEMMAP_IOAPIC);
    p += IOAPIC_LEN;
    put_override(p, 0, 2, 0);
    put_override(p + OVERRIDE_LEN, SCI_IRQ, SCI_IRQ, LEVEL_HIGH);
    p += 2 * OVERRIDE_LEN;
    p[0] = 4;
    p[1] = NMI_LEN;
    p[2] = 0xff; /* every processor */
    p[5] = 1;
    return seal(b, t);
}

static uint64_t add_mcfg(struct blob *b)
{
    uint8_t *t = begin(b, "MCFG", 1, HEADER + 8 + 16);

    store_le64(t + HEADER + 8, MEMMAP_ECAM_BASE);
    t[HEADER + 8 + 11] = MEMMAP_ECAM_SIZE / MIB - 1; /* last bus */
    return seal(b, t);
}

static uint64_t add_hpet(struct blob *b)
{
    uint8_t *t = begin(b, "HPET", 1, 56);

    store_le32(t + HEADER, HPET_ID);
    put_gas(t + HEADER + 4, GAS_MEMORY, 64, GAS_ANY, MEMMAP_HPET);
    store_le16(t + HEADER + 17, 0x80); /* shortest periodic tick that loses no interrupt */
    return seal(b, t);
}

static int write_rsdp(struct ram *ram, uint64_t xsdt)
{
    uint8_t r[RSDP_SIZE] = {0};

    memcpy(r, "RSD PTR ", 8);
    memcpy(r + 9, "VIREO ", 6);
    r[15] = 2; /* revision */
    store_le32(r + 20, RSDP_SIZE);
    store_le64(r + 24, xsdt);
    r[8] = checksum(r, 20);
    r[32] = checksum(r, RSDP_SIZE);
    return ram_write(ram, MEMMAP_BIOS, r, sizeof(r));
}

int acpi_write(struct ram *ram, const struct acpi_conf *conf, uint64_t *rsdp, struct err *err)
{
    struct blob b = {.base = conf->base};
    uint64_t tables[4], dsdt = align_up(conf->base + TABLES_MAX, 64);

    if (conf->size < TABLES_MAX + sizeof(dsdt_aml_code))
        return err_set(err, -ENOSPC, "acpi: tables need %zu bytes", (size_t)TABLES_MAX + sizeof(dsdt_aml_code));
    uint64_t facs = add_facs(&b);
    tables[0] = add_fadt(&b, facs, dsdt);
    tables[1] = add_madt(&b, conf->n_cpus);
    tables[2] = add_mcfg(&b);
    tables[3] = add_hpet(&b);
    uint8_t *x = begin(&b, "XSDT", 1, HEADER + sizeof(tables));
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        store_le64(x + HEADER + 8 * i, tables[i]);
    uint64_t xsdt = seal(&b, x);

    int r = ram_zero(ram, conf->base, conf->size);
    if (r == 0)
        r = ram_write(ram, conf->base, b.data, b.len);
    if (r == 0)
        r = ram_write(ram, dsdt, dsdt_aml_code, sizeof(dsdt_aml_code));
    if (r == 0)
        r = write_rsdp(ram, xsdt);
    if (r < 0)
        return err_set(err, r, "acpi: no memory at %#llx", (unsigned long long)conf->base);
    *rsdp = MEMMAP_BIOS;
    return 0;
}
