#include <errno.h>
#include <stdlib.h>

#include "../unit.h"
#include "x86/state.h"

static void test_reset(void **state)
{
    struct x86_state st;

    x86_state_reset(&st, true);
    assert_int_equal(st.seg[X86_CS].base + st.rip, 0xfffffff0);
    assert_int_equal(st.cr0, 0x60000010);
    assert_int_equal(st.rflags, 2);
    assert_int_equal(st.activity, X86_RUNNING);
    assert_int_equal(st.fx.mxcsr, 0x1f80);
    assert_int_equal(x86_cpl(&st), 0);
    assert_int_equal(st.tr.attr, 0x8b);
    x86_state_reset(&st, false);
    assert_int_equal(st.activity, X86_WAIT_SIPI);
}

/* INIT keeps the FPU, MTRRs and the cache bits, and clears paging and EFER. */
static void test_init_keeps(void **state)
{
    struct x86_state st;

    x86_state_reset(&st, false);
    st.cr0 = X86_CR0_PG | X86_CR0_PE | X86_CR0_NW;
    st.efer = X86_EFER_LMA | X86_EFER_LME;
    st.fx.fcw = 0x37f;
    st.ymm[3][31] = 7;
    st.mtrr_def_type = 6;
    st.lstar = 0x1234;
    st.kvm_system_time = 0x5001;
    x86_state_init(&st, false);
    assert_int_equal(st.cr0, X86_CR0_NW | X86_CR0_ET);
    assert_int_equal(st.efer, 0);
    assert_int_equal(st.fx.fcw, 0x37f);
    assert_int_equal(st.ymm[3][31], 7);
    assert_int_equal(st.mtrr_def_type, 6);
    assert_int_equal(st.lstar, 0x1234);
    assert_int_equal(st.kvm_system_time, 0);
    x86_state_sipi(&st, 0x9a);
    assert_int_equal(st.seg[X86_CS].sel, 0x9a00);
    assert_int_equal(st.seg[X86_CS].base + st.rip, 0x9a000);
    assert_int_equal(st.activity, X86_RUNNING);
}

static void test_stream(void **state)
{
    struct x86_state st, back;
    struct stream out, in;

    x86_state_reset(&st, true);
    for (size_t i = 0; i < X86_N_GPR; i++)
        st.gpr[i] = 0x0101010101010101 * i;
    st.ymm[15][31] = 0x5a;
    st.fx.st[7][9] = 0x7f;
    st.dr7 = 0x455;
    st.pdpte[3] = 0x7001;
    st.pending_debug = 8;
    st.taken = X86_TAKEN | 0x31;
    st.kvm_system_time = 0x5001;
    st.kvm_wall_clock = 0x6000;
    st.nmi_blocked = true;
    stream_init_save(&out);
    x86_state_stream(&st, &out);
    memset(&back, 0, sizeof(back));
    stream_init_load(&in, out.data, out.len);
    x86_state_stream(&back, &in);
    assert_int_equal(in.error, 0);
    assert_int_equal(in.pos, out.len);
    assert_memory_equal(&back, &st, sizeof(st));

    out.data[out.len - 6] = 9; /* no such activity */
    stream_init_load(&in, out.data, out.len);
    x86_state_stream(&back, &in);
    assert_int_equal(in.error, -EPROTO);
    stream_fini(&out);
}

static void test_print(void **state)
{
    struct x86_state st;
    char small[10], *whole;

    x86_state_reset(&st, true);
    int n = x86_state_print(&st, NULL, 0);
    assert_int_equal(x86_state_print(&st, small, sizeof(small)), n);
    whole = malloc((size_t)n + 1);
    assert_non_null(whole);
    assert_int_equal(x86_state_print(&st, whole, (size_t)n + 1), n);
    assert_non_null(strstr(whole, "rip  000000000000fff0"));
    assert_non_null(strstr(whole, "cs   f000 base 00000000ffff0000"));
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_init_keeps),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests_name("x86-state", tests, NULL, NULL);
}
