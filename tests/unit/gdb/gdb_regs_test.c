/* Registers by gdb's numbers, what may be changed of them, and the description that tells gdb. */
#include "gdb/gdb_regs.h"

#include <errno.h>
#include <stdio.h>

#include "../unit.h"
#include "gdb/gdb_target.h"

#define PHYS_BITS 40

static struct gdb_regs fresh(void)
{
    struct gdb_regs regs = {.cr8 = 3};

    x86_state_reset(&regs.st, true);
    return regs;
}

static uint64_t get(const struct gdb_regs *regs, unsigned n)
{
    uint8_t value[GDB_REGS_BYTES_MAX] = {0};

    gdb_regs_get(regs, n, value);
    return load_le64(value) & ones_mask(gdb_regs_size(n));
}

static int set(struct gdb_regs *regs, unsigned n, uint64_t v)
{
    uint8_t value[GDB_REGS_BYTES_MAX] = {0};

    store_le64(value, v);
    return gdb_regs_set(regs, n, value, PHYS_BITS);
}

static void every_register_keeps_its_own_value(void **state)
{
    struct gdb_regs regs = fresh(), before;
    uint8_t old[GDB_REGS_BYTES_MAX], value[GDB_REGS_BYTES_MAX];

    for (unsigned n = 0; n < GDB_REGS_N; n++) {
        before = regs;
        assert_in_range(gdb_regs_size(n), 4, GDB_REGS_BYTES_MAX);
        gdb_regs_get(&regs, n, old);
        assert_int_equal(gdb_regs_set(&regs, n, old, PHYS_BITS), 0); /* what is there may always be written */
        assert_memory_equal(&before, &regs, sizeof(regs));
        memcpy(value, old, sizeof(value));
        value[0] ^= 1;
        int r = gdb_regs_set(&regs, n, value, PHYS_BITS);
        if (r == 0 && n != GDB_REGS_FTAG_0) { /* the tag word follows from the registers' contents */
            gdb_regs_get(&regs, n, old);
            assert_memory_equal(old, value, gdb_regs_size(n));
        }
        for (unsigned other = 0; other < GDB_REGS_N; other++) {
            if (other == n || other == GDB_REGS_FTAG_0)
                continue;
            gdb_regs_get(&before, other, value);
            gdb_regs_get(&regs, other, old);
            assert_memory_equal(value, old, gdb_regs_size(other));
        }
    }
    assert_int_equal(gdb_regs_size(GDB_REGS_N), 0);
    assert_int_equal(gdb_regs_size(UINT64_MAX), 0);
}

static void guarded(void **state)
{
    struct gdb_regs regs = fresh();

    assert_int_equal(set(&regs, GDB_REGS_SEG_X86_CS, 0x10), -EPERM);
    assert_int_equal(set(&regs, GDB_REGS_CR0_0, regs.st.cr0 | X86_CR0_PG), -EPERM);
    assert_int_equal(set(&regs, GDB_REGS_CR4_0, X86_CR4_PAE), -EPERM);
    assert_int_equal(set(&regs, GDB_REGS_EFER_0, X86_EFER_LMA), -EPERM);
    assert_int_equal(set(&regs, GDB_REGS_BASE_X86_FS, UINT64_C(1) << 47), -EINVAL);
    assert_int_equal(set(&regs, GDB_REGS_KERNEL_GS_BASE_0, UINT64_C(1) << 63), -EINVAL);
    assert_int_equal(set(&regs, GDB_REGS_MXCSR_0, 0x10000), -EINVAL);
    assert_int_equal(set(&regs, GDB_REGS_CR8_0, 16), -EINVAL);
    assert_int_equal(set(&regs, GDB_REGS_CR3_0, UINT64_C(1) << PHYS_BITS), -EINVAL);
    assert_int_equal(set(&regs, GDB_REGS_CR3_0, 0x5000), 0);
    regs.st.cr4 |= X86_CR4_PAE;
    assert_int_equal(set(&regs, GDB_REGS_CR3_0, 0x6000), -EPERM);
    regs.st.efer |= X86_EFER_LMA;
    assert_int_equal(set(&regs, GDB_REGS_CR3_0, 0x6000), 0);
    assert_int_equal(set(&regs, GDB_REGS_EFLAGS_0, UINT32_MAX), 0);
    assert_int_equal(regs.st.rflags, 0x257fd7);
}

static void tag_word(void **state)
{
    struct gdb_regs regs = fresh();
    struct x86_fxsave *fx = &regs.st.fx;

    fx->fsw = 6 << 11; /* ST0 is R6, ST1 R7, ST2 R0, ST3 R1 */
    fx->ftw = 0xc3;
    memset(fx->st, 0, sizeof(fx->st));
    store_le64(fx->st[0], UINT64_C(1) << 63); /* 1.0 */
    store_le16(fx->st[0] + 8, 0x3fff);
    store_le16(fx->st[2] + 8, 0x7fff); /* a pseudo-infinity */
    store_le64(fx->st[3], 1);          /* a denormal */
    assert_int_equal(get(&regs, GDB_REGS_FTAG_0), 0x4ffa);
    assert_int_equal(set(&regs, GDB_REGS_FTAG_0, 0x7ffe), 0);
    assert_int_equal(fx->ftw, 0x81);
}

static void description(void **state)
{
    static char xml[GDB_TARGET_XML_MAX];
    size_t len = gdb_target_xml(xml, sizeof(xml));
    unsigned n = 0;

    assert_true(len < sizeof(xml));
    assert_int_equal(strlen(xml), len);
    for (const char *at = xml; (at = strstr(at, "<reg ")) != NULL; at++, n++) {
        char regnum[32], bits[32];
        const char *end = strchr(at, '>');
        snprintf(regnum, sizeof(regnum), "regnum=\"%u\"", n);
        snprintf(bits, sizeof(bits), "bitsize=\"%u\"", gdb_regs_size(n) * 8);
        assert_true(strstr(at, regnum) < end && strstr(at, bits) && strstr(at, bits) < end);
    }
    assert_int_equal(n, GDB_REGS_N);
    assert_non_null(strstr(xml, "<field name=\"PG\" start=\"31\" end=\"31\"/>"));
    assert_int_equal(gdb_target_xml(xml, 10), len); /* as much as it would take */
    assert_int_equal(strlen(xml), 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_register_keeps_its_own_value),
        cmocka_unit_test(guarded),
        cmocka_unit_test(tag_word),
        cmocka_unit_test(description),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
