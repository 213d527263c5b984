#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"
#include "machine/acpi.h"
#include "machine/memmap.h"

#define BASE (8 * MIB)

struct tables {
    struct ram ram;
    uint64_t rsdp;
};

static int setup(void **state)
{
    static struct tables t;
    struct err err;
    const struct acpi_conf conf = {.base = BASE, .size = MEMMAP_ACPI_SIZE, .n_cpus = 3};
    if (ram_open(&t.ram, 16 * MIB, MEMMAP_LOW_MAX, &err) < 0 || acpi_write(&t.ram, &conf, &t.rsdp, &err) < 0)
        return -1;
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    ram_close(&((struct tables *)*state)->ram);
    return 0;
}

static const uint8_t *at(struct tables *t, uint64_t gpa, uint64_t len)
{
    const uint8_t *p = ram_host(&t->ram, gpa, len);
    assert_non_null(p);
    return p;
}

static uint8_t sum(const uint8_t *p, unsigned len)
{
    uint8_t s = 0;
    for (unsigned i = 0; i < len; i++)
        s += p[i];
    return s;
}

/* The table of that signature, found as a guest does. */
static const uint8_t *find(struct tables *t, const char *signature)
{
    const uint8_t *rsdp = at(t, t->rsdp, 36);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    const uint8_t *xsdt = at(t, load_le64(rsdp + 24), 36);
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal(sum(xsdt, load_le32(xsdt + 4)), 0);
    for (unsigned off = 36; off < load_le32(xsdt + 4); off += 8) {
        const uint8_t *table = at(t, load_le64(xsdt + off), 36);
        assert_int_equal(sum(table, load_le32(table + 4)), 0);
        if (memcmp(table, signature, 4) == 0)
            return table;
    }
    return NULL;
}

static void test_fadt(void **state)
{
    struct tables *t = *state;
    const uint8_t *fadt = find(t, "FACP");
    assert_non_null(fadt);
    assert_int_equal(load_le32(fadt + 4), 276);
    assert_int_equal(fadt[8], 6);
    assert_int_equal(load_le32(fadt + 56), 0x600);
    assert_int_equal(load_le32(fadt + 76), 0x608);
    assert_true(load_le32(fadt + 112) & 1 << 10); /* the reset register counts */
    assert_int_equal(load_le64(fadt + 120), 0xcf9);
    assert_int_equal(fadt[128], 0x06);
    assert_int_equal(load_le64(fadt + 140), load_le32(fadt + 40));
    const uint8_t *facs = at(t, load_le32(fadt + 36), 64);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(load_le32(fadt + 36) % 64, 0);
    const uint8_t *dsdt = at(t, load_le32(fadt + 40), 36);
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_int_equal(sum(dsdt, load_le32(dsdt + 4)), 0);
}

static void test_madt(void **state)
{
    struct tables *t = *state;
    const uint8_t *madt = find(t, "APIC");
    unsigned n_lapic = 0, n_ioapic = 0, n_override = 0, n_nmi = 0, off = 44;
    assert_non_null(madt);
    while (off < load_le32(madt + 4)) {
        const uint8_t *e = madt + off;
        assert_true(e[1] >= 2);
        n_lapic += e[0] == 0 && e[3] == n_lapic && e[4] == 1;
        n_ioapic += e[0] == 1 && load_le32(e + 4) == 0xfec00000;
        n_override += e[0] == 2 && ((e[3] == 0 && load_le32(e + 4) == 2) || (e[3] == 9 && load_le16(e + 8) == 0xd));
        n_nmi += e[0] == 4 && e[2] == 0xff && e[5] == 1;
        off += e[1];
    }
    assert_int_equal(off, load_le32(madt + 4));
    assert_int_equal(n_lapic, 3);
    assert_int_equal(n_ioapic, 1);
    assert_int_equal(n_override, 2);
    assert_int_equal(n_nmi, 1);
}

static void test_mcfg_and_hpet(void **state)
{
    struct tables *t = *state;
    const uint8_t *mcfg = find(t, "MCFG"), *hpet = find(t, "HPET");
    assert_non_null(mcfg);
    assert_non_null(hpet);
    assert_int_equal(load_le64(mcfg + 44), MEMMAP_ECAM_BASE);
    assert_int_equal(mcfg[55], 255);
    assert_int_equal(load_le64(hpet + 44), MEMMAP_HPET);
}

/* What iasl makes of a table: it must know and accept every field. */
static void disassemble(const uint8_t *table, const char *dir)
{
    char path[256], command[1024];
    snprintf(path, sizeof(path), "%s/%.4s.aml", dir, (const char *)table);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(table, 1, load_le32(table + 4), f), load_le32(table + 4));
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof(command),
             "cd %s && iasl -d %s >log 2>&1 && ! grep -iE 'error|invalid|incorrect|unknown' log && "
             "iasl -ve -p again %.4s.dsl >log 2>&1 || { cat log; false; }",
             dir, path, (const char *)table);
    assert_int_equal(system(command), 0);
}

static void test_iasl_accepts(void **state)
{
    static const char *const signatures[] = {"FACP", "APIC", "MCFG", "HPET"};
    struct tables *t = *state;
    char dir[] = "/tmp/acpi_test.XXXXXX", command[64];
    if (system("iasl -v >/dev/null 2>&1") != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
        const uint8_t *table = find(t, signatures[i]);
        assert_non_null(table);
        disassemble(table, dir);
    }
    const uint8_t *fadt = find(t, "FACP");
    disassemble(at(t, load_le32(fadt + 40), 36), dir);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void test_memory_map(void **state)
{
    struct ram ram = {.low = 2 * GIB, .high = 3 * GIB, .size = 5 * GIB};
    struct memmap_range map[MEMMAP_MAX_RANGES];
    unsigned n = memmap_e820(&ram, 2 * GIB - MEMMAP_ACPI_SIZE, MEMMAP_ACPI_SIZE, map);
    uint64_t usable = 0;
    for (unsigned i = 0; i < n; i++) {
        assert_true(i == 0 || map[i].base >= map[i - 1].base + map[i - 1].size);
        usable += map[i].type == MEMMAP_RAM ? map[i].size : 0;
    }
    assert_int_equal(usable, 5 * GIB - MEMMAP_ACPI_SIZE - (MEMMAP_HIGH - MEMMAP_EBDA));
    assert_int_equal(map[n - 1].base, RAM_HIGH_BASE);
    ram.high = 0;
    assert_int_equal(memmap_e820(&ram, 2 * GIB - MEMMAP_ACPI_SIZE, MEMMAP_ACPI_SIZE, map), n - 1);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_fadt), T(test_madt), T(test_mcfg_and_hpet), T(test_iasl_accepts), cmocka_unit_test(test_memory_map),
    };
    return cmocka_run_group_tests_name("acpi", tests, NULL, NULL);
}
