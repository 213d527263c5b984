/* Exceptions of SIMD and x87, masked memory accesses, and the images that FNSAVE, FXSAVE and XSAVE make. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/interp/vector.h"
#include "unit.h"
#include "vector_fake.h"

static struct interp *c;

static int setup(void **ctx)
{
    c = fake_open();
    return 0;
}

static int teardown(void **ctx)
{
    fake_close(c);
    return 0;
}

static void set_float(unsigned reg, unsigned lane, float v)
{
    memcpy(c->st.ymm[reg] + 4 * lane, &v, 4);
}

static void set_st(unsigned i, long double v)
{
    memset(c->st.fx.st[i], 0, 16);
    memcpy(c->st.fx.st[i], &v, 10);
}

static long double get_st(unsigned i)
{
    long double v = 0;
    memcpy(&v, c->st.fx.st[i], 10);
    return v;
}

/* cmocka catches SIGFPE in every test; opening a unit gives it back. */
static void take_sigfpe(void)
{
    fake_close(fake_open());
}

#define ASSERT_RUNS(hex)           assert_int_equal(fake_exec(c, hex), FAKE_NONE)
#define ASSERT_RAISES(hex, vector) assert_int_equal(fake_exec(c, hex), vector)

/* SDM Vol. 1 11.5: the flag is set, the registers are not. */
static void test_unmasked_divide(void **ctx)
{
    uint8_t before[32];

    take_sigfpe();
    set_float(0, 0, 1.0f);
    c->st.fx.mxcsr = VECTOR_MXCSR_DEFAULT & ~(1u << 9); /* ZE unmasked */
    memcpy(before, c->st.ymm[0], 32);
    ASSERT_RAISES("0f5ec1", X86_XM); /* divps xmm0, xmm1 */
    assert_memory_equal(before, c->st.ymm[0], 32);
    assert_int_equal(c->st.fx.mxcsr & 0x3f, 1 << 0 | 1 << 2); /* 0/0 in other lanes: IE too */
    c->st.cr4 &= ~X86_CR4_OSXMMEXCPT;
    ASSERT_RAISES("0f5ec1", X86_UD);
    c->st.fx.mxcsr = VECTOR_MXCSR_DEFAULT;
    ASSERT_RUNS("0f5ec1");
}

static void test_unmasked_kinds(void **ctx)
{
    static const struct {
        float a, b;
        uint8_t flag;
        const char *hex;
    } cases[] = {
        {INFINITY, -INFINITY, 1 << 0, "f30f58c1"}, /* addss: invalid */
        {1e-44f, 1.0f, 1 << 1, "f30f58c1"},        /* denormal */
        {3e38f, 3e38f, 1 << 3, "f30f58c1"},        /* overflow */
        {1e-38f, 1e-3f, 1 << 4, "f30f59c1"},       /* mulss: underflow */
        {1.0f, 3.0f, 1 << 5, "f30f5ec1"},          /* divss: precision */
    };
    take_sigfpe();
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        set_float(0, 0, cases[i].a);
        set_float(1, 0, cases[i].b);
        c->st.fx.mxcsr = VECTOR_MXCSR_DEFAULT & ~((uint32_t)cases[i].flag << 7);
        ASSERT_RAISES(cases[i].hex, X86_XM);
        assert_true(c->st.fx.mxcsr & cases[i].flag);
        float a;
        memcpy(&a, c->st.ymm[0], 4);
        assert_true(a == cases[i].a);
        c->st.fx.mxcsr = VECTOR_MXCSR_DEFAULT;
        ASSERT_RUNS(cases[i].hex);
        assert_true(c->st.fx.mxcsr & cases[i].flag);
    }
    /* all unmasked and nothing to raise */
    set_float(0, 0, 1.0f);
    set_float(1, 0, 2.0f);
    c->st.fx.mxcsr = 0;
    ASSERT_RUNS("f30f58c1");
    assert_int_equal(c->st.fx.mxcsr, 0);
}

/* More stubs than the cache holds: all go, and an instruction that held one gets it again. */
static void test_stubs_are_bounded(void **ctx)
{
    struct insn first = {0};
    char hex[16];

    for (unsigned i = 0; i < 16; i++)
        c->st.ymm[1][i] = (uint8_t)i;
    for (unsigned i = 0; i < 64 * 256; i++) {
        snprintf(hex, sizeof(hex), "660f70%02x%02x", 0xc0 | i / 256, i % 256); /* pshufd */
        ASSERT_RUNS(hex);
        if (i == 256 + 0x1b) /* pshufd xmm0, xmm1, 0x1b */
            first = *c->cur;
    }
    for (unsigned i = 0; i < 16; i++)
        c->st.ymm[1][i] = (uint8_t)i;
    assert_int_equal(fake_run(c, &first), FAKE_NONE);
    assert_int_equal(load_le32(c->st.ymm[0]), 0x0f0e0d0c);
    assert_int_equal(load_le32(c->st.ymm[0] + 12), 0x03020100);
}

/* From MMX to XMM: the x87 state turns to MMX even if the conversion is refused. */
static void test_unmasked_mmx(void **ctx)
{
    take_sigfpe();
    c->st.fx.fsw = 5 << 11;
    c->st.fx.ftw = 0;
    for (unsigned i = 0; i < 8; i++)
        store_le64(c->st.fx.st[i], 0x7fffffff7fffffff);
    set_float(0, 0, 2.0f);
    c->st.fx.mxcsr = VECTOR_MXCSR_DEFAULT & ~(1u << 12);
    c->st.fx.fip = 0x1234;
    ASSERT_RAISES("0f2ac1", X86_XM); /* cvtpi2ps xmm0, mm1 */
    assert_int_equal(c->st.fx.mxcsr & 0x3f, 1 << 5);
    assert_int_equal(load_le32(c->st.ymm[0]), 0x40000000);
    assert_int_equal(c->st.fx.ftw, 0xff);
    assert_int_equal(c->st.fx.fsw >> 11 & 7, 0);
    assert_int_equal(c->st.fx.fip, 0x1234);
}

static void test_alignment(void **ctx)
{
    c->st.gpr[X86_RSI] = FAKE_BASE + 8;
    ASSERT_RAISES("660fef06", X86_GP); /* pxor xmm0, [rsi] */
    ASSERT_RAISES("0f2806", X86_GP);   /* movaps */
    ASSERT_RAISES("0f2906", X86_GP);
    ASSERT_RAISES("0f2b06", X86_GP);     /* movntps */
    ASSERT_RAISES("660f382a06", X86_GP); /* movntdqa */
    ASSERT_RAISES("660f2d06", X86_GP);   /* cvtpd2pi mm0, [rsi] */
    ASSERT_RUNS("0f1006");               /* movups */
    ASSERT_RUNS("f30f6f06");             /* movdqu */
    ASSERT_RUNS("660f3a6206ff");         /* pcmpistrm */
    ASSERT_RUNS("f20f5806");             /* addsd: 8 bytes */
    ASSERT_RUNS("c5f9ef06");             /* vpxor */
    ASSERT_RAISES("c5f82806", X86_GP);   /* vmovaps */
    c->st.gpr[X86_RSI] = FAKE_BASE + 16;
    ASSERT_RUNS("c5f82806");
    ASSERT_RAISES("c5fc2806", X86_GP); /* vmovaps ymm */
}

static void test_modes(void **ctx)
{
    c->st.cr0 |= X86_CR0_TS;
    ASSERT_RAISES("0f58c1", X86_NM);
    ASSERT_RAISES("c5f058c1", X86_NM);
    ASSERT_RAISES("0fefc1", X86_NM); /* pxor mm */
    ASSERT_RAISES("d8c1", X86_NM);
    ASSERT_RAISES("9b", X86_NM);
    ASSERT_RAISES("0fae06", X86_NM);
    ASSERT_RAISES("0fae26", X86_NM);
    c->st.cr0 &= ~X86_CR0_MP;
    ASSERT_RUNS("9b");
    c->st.cr0 = X86_CR0_PE | X86_CR0_EM;
    ASSERT_RAISES("0f58c1", X86_UD);
    ASSERT_RAISES("0fefc1", X86_UD);
    ASSERT_RAISES("d8c1", X86_NM);
    ASSERT_RUNS("c5f058c1"); /* EM does not concern VEX */
    c->st.cr0 = X86_CR0_PE;
    c->st.cr4 &= ~X86_CR4_OSFXSR;
    ASSERT_RAISES("0f58c1", X86_UD);
    ASSERT_RUNS("0fefc1");
    ASSERT_RAISES("0f2ac1", X86_UD); /* cvtpi2ps: XMM too */
    c->st.xcr0 = 3;
    ASSERT_RAISES("c5f058c1", X86_UD);
    c->st.xcr0 = 7;
    c->st.cr4 &= ~X86_CR4_OSXSAVE;
    ASSERT_RAISES("c5f058c1", X86_UD);
    ASSERT_RAISES("0fae26", X86_UD); /* xsave */
    ASSERT_RAISES("0f01d0", X86_UD); /* xgetbv */
}

/* Devices and page crossings are reached by copies; nothing is written when the operand faults. */
static void test_bounced(void **ctx)
{
    fake_set_device(c, true);
    memset(fake_memory(c), 0x5a, 32);
    ASSERT_RUNS("0f1006"); /* movups xmm0, [rsi] */
    assert_memory_equal(c->st.ymm[0], fake_memory(c), 16);
    memset(c->st.ymm[1], 0x77, 32);
    ASSERT_RUNS("c5fe7f4e20"); /* vmovdqu [rsi + 32], ymm1 */
    assert_memory_equal(fake_memory(c) + 32, c->st.ymm[1], 32);
    c->st.gpr[X86_RSI] = FAKE_BASE + FAKE_SIZE - 31;
    ASSERT_RAISES("c5fe7f0e", X86_PF);

    /* An x87 store kept back by an unmasked exception leaves memory alone. */
    c->st.gpr[X86_RSI] = FAKE_BASE;
    c->st.fx.fcw = 0x37e; /* IM clear */
    ASSERT_RUNS("d91e");  /* fstp dword [rsi] of an empty stack */
    assert_int_equal(load_le32(fake_memory(c)), 0x5a5a5a5a);
    ASSERT_RAISES("d9e8", X86_MF);
}

static void test_32bit_forms(void **ctx)
{
    c->code_size = 4;
    c->st.gpr[X86_RAX] = 0x1122334455667788;
    ASSERT_RUNS("c4e1f96ec0"); /* vmovd xmm0, eax: W is ignored */
    assert_int_equal(load_le64(c->st.ymm[0]), 0x55667788);
    memset(c->st.ymm[8], 0xff, 32);
    ASSERT_RUNS("c5f877"); /* vzeroupper */
    assert_int_equal(c->st.ymm[8][31], 0xff);
}

static void test_masked_moves(void **ctx)
{
    uint32_t mask[8] = {1u << 31, 0, 1u << 31, 0, 0, 0, 0, 0};

    memcpy(c->st.ymm[1], mask, 32);
    memset(c->st.ymm[0], 0x33, 32);
    memset(fake_memory(c), 0x44, FAKE_SIZE);
    /* vpmaskmovd [rsi], ymm1, ymm0, and its last elements beyond the page */
    c->st.gpr[X86_RSI] = FAKE_BASE + FAKE_SIZE - 12;
    ASSERT_RUNS("c4e2758e06");
    assert_int_equal(load_le32(fake_memory(c) + FAKE_SIZE - 12), 0x33333333);
    assert_int_equal(load_le32(fake_memory(c) + FAKE_SIZE - 8), 0x44444444);
    ASSERT_RUNS("c4e2758c16"); /* vpmaskmovd ymm2, ymm1, [rsi] */
    assert_int_equal(load_le32(c->st.ymm[2]), 0x33333333);
    assert_int_equal(load_le32(c->st.ymm[2] + 4), 0);
    assert_int_equal(load_le32(c->st.ymm[2] + 8), 0x33333333);

    /* a selected one faults: none is written */
    c->st.gpr[X86_RSI] = FAKE_BASE + FAKE_SIZE - 8;
    memset(c->st.ymm[0], 0x66, 32);
    ASSERT_RAISES("c4e2758e06", X86_PF);
    assert_int_equal(load_le32(fake_memory(c) + FAKE_SIZE - 8), 0x44444444);

    /* maskmovdqu xmm0, xmm1 */
    c->st.gpr[X86_RDI] = FAKE_BASE + 1;
    ASSERT_RUNS("660ff7c1");
    assert_int_equal(fake_memory(c)[1 + 3], 0x66);
    assert_int_equal(fake_memory(c)[1 + 4], 0x44);
}

static void test_gather(void **ctx)
{
    uint32_t index[8] = {3, 2, 1, 5000, 7, 6, 5, 4};

    for (unsigned i = 0; i < 1024; i++)
        store_le32(fake_memory(c) + 4 * i, i * 10);
    memcpy(c->st.ymm[1], index, 32);
    memset(c->st.ymm[2], 0xff, 32);
    memset(c->st.ymm[0], 0x11, 32);
    ASSERT_RAISES("c4e26d90048e", X86_PF); /* vpgatherdd ymm0, [rsi + ymm1 * 4], ymm2 */
    assert_int_equal(load_le32(c->st.ymm[0] + 8), 10);
    assert_int_equal(load_le32(c->st.ymm[0] + 12), 0x11111111);
    assert_int_equal(load_le32(c->st.ymm[2] + 8), 0);
    assert_int_equal(load_le32(c->st.ymm[2] + 12), 0xffffffff);
    store_le32(c->st.ymm[1] + 12, 0);
    store_le32(c->st.ymm[1], 5000); /* done already: not read again */
    ASSERT_RUNS("c4e26d90048e");
    assert_int_equal(load_le32(c->st.ymm[0]), 30);
    assert_int_equal(load_le32(c->st.ymm[0] + 28), 40);
    assert_int_equal(load_le64(c->st.ymm[2] + 24), 0);
    ASSERT_RAISES("c4e26d901486", X86_UD); /* destination and mask the same */
}

static void test_mxcsr(void **ctx)
{
    store_le32(fake_memory(c), 0x10000);
    ASSERT_RAISES("0fae16", X86_GP);
    store_le32(fake_memory(c), 0xffff);
    ASSERT_RUNS("0fae16");
    assert_int_equal(c->st.fx.mxcsr, 0xffff);
    ASSERT_RUNS("0fae5e04");
    assert_int_equal(load_le32(fake_memory(c) + 4), 0xffff);
}

static void test_x87_exceptions(void **ctx)
{
    c->st.fx.fcw = 0x37b; /* ZM clear */
    ASSERT_RUNS("d9e8");  /* fld1 */
    ASSERT_RUNS("d9ee");  /* fldz */
    ASSERT_RUNS("def9");  /* fdivp: 1 / 0, held back */
    assert_int_equal(c->st.fx.fsw & 0x8084, 0x8084);
    assert_int_equal(c->st.fx.fop, 0x6f9);
    assert_int_equal(c->st.fx.fip, 0x1000);
    ASSERT_RAISES("d9e8", X86_MF);
    ASSERT_RAISES("9b", X86_MF);
    ASSERT_RAISES("0f77", X86_MF);
    ASSERT_RUNS("dfe0"); /* fnstsw ax does not wait */
    assert_int_equal(c->st.gpr[X86_RAX] & 0xffff, c->st.fx.fsw);
    ASSERT_RUNS("dbe2"); /* fnclex */
    ASSERT_RUNS("9b");
    c->st.fx.fsw |= 1 << 2; /* a flag from before */
    store_le16(fake_memory(c), 0x37b);
    ASSERT_RUNS("d92e"); /* fldcw unmasks it */
    ASSERT_RAISES("9b", X86_MF);
}

static void test_x87_environment(void **ctx)
{
    for (unsigned i = 0; i < 3; i++)
        ASSERT_RUNS("d9e8");
    ASSERT_RUNS("d9ee");
    ASSERT_RUNS("d94604"); /* fld dword [rsi + 4]: zero */
    uint8_t *m = fake_memory(c);
    struct x86_fxsave before = c->st.fx;
    ASSERT_RUNS("d936"); /* fnstenv [rsi] */
    assert_int_equal(load_le16(m), 0x37f);
    assert_int_equal(load_le16(m + 4), before.fsw);
    assert_int_equal(load_le16(m + 8), 0x17f); /* R7..R5 valid, R4, R3 zero, the rest empty */
    assert_int_equal(load_le32(m + 12), 0x1000);
    assert_int_equal(load_le16(m + 18), 0x146);
    assert_int_equal(load_le32(m + 20), FAKE_BASE + 4);
    assert_int_equal(c->st.fx.fcw, 0x37f);
    ASSERT_RUNS("dd36"); /* fnsave */
    assert_int_equal(c->st.fx.ftw, 0);
    assert_int_equal(c->st.fx.fsw, 0);
    ASSERT_RUNS("dd26"); /* frstor */
    assert_int_equal(c->st.fx.fsw, before.fsw);
    assert_int_equal(c->st.fx.ftw, before.ftw);
    assert_memory_equal(c->st.fx.st, before.st, sizeof(before.st));
    ASSERT_RUNS("66dd36"); /* the 16-bit layout */
    ASSERT_RUNS("66dd26");
    assert_memory_equal(c->st.fx.st, before.st, sizeof(before.st));
    assert_int_equal(c->st.fx.fsw, before.fsw);
}

static void test_fxsave(void **ctx)
{
    uint8_t *m = fake_memory(c);

    set_st(0, 1.5L);
    c->st.fx.ftw = 0x80;
    c->st.fx.fsw = 7 << 11;
    c->st.fx.fip = 0x123456789abc;
    for (unsigned i = 0; i < 16; i++)
        memset(c->st.ymm[i], (int)i + 1, 32);
    memset(m, 0xee, 512);
    ASSERT_RUNS("480fae06");
    assert_int_equal(load_le64(m + 8), 0x123456789abc);
    assert_int_equal(load_le32(m + 28), 0xffff);
    assert_int_equal(m[160 + 16 * 15], 16);
    assert_int_equal(m[416], 0xee);
    c->st.fx.fcw = 0x40;
    set_st(0, 2.0L);
    memset(c->st.ymm[15], 0, 16);
    ASSERT_RUNS("480fae0e");
    assert_true(get_st(0) == 1.5L);
    assert_int_equal(c->st.fx.fcw, 0x37f);
    assert_int_equal(c->st.ymm[15][0], 16);
    assert_int_equal(c->st.ymm[15][16], 16);
    m[27] = 1; /* reserved in MXCSR */
    ASSERT_RAISES("480fae0e", X86_GP);
    c->st.gpr[X86_RSI] += 8;
    ASSERT_RAISES("0fae06", X86_GP);

    c->st.gpr[X86_RSI] = FAKE_BASE;
    c->code_size = 4;
    memset(m, 0xee, 512);
    ASSERT_RUNS("0fae06");
    assert_int_equal(load_le64(m + 8), 0x56789abc);
    assert_int_equal(m[160 + 16 * 8], 0xee);
}

static void set_mask(uint64_t mask)
{
    c->st.gpr[X86_RAX] = mask;
    c->st.gpr[X86_RDX] = 0;
}

static void test_xsave_round_trip(void **ctx)
{
    static const char *const saves[] = {"480fae26", "480fae36", "480fc726"}; /* xsave64, xsaveopt64, xsavec64 */
    uint8_t *m = fake_memory(c);

    for (unsigned k = 0; k < 3; k++) {
        memset(m, 0, 1024);
        set_st(0, 3.25L);
        c->st.fx.ftw = 1;
        c->st.fx.mxcsr = 0x9f80;
        for (unsigned i = 0; i < 16; i++)
            memset(c->st.ymm[i], (int)(i + 1 + k), 32);
        struct x86_state before = c->st;
        set_mask(7);
        ASSERT_RUNS(saves[k]);
        assert_int_equal(load_le64(m + 512), 7);
        assert_int_equal(load_le64(m + 520), k == 2 ? UINT64_C(0x8000000000000007) : 0);
        set_st(0, 0);
        memset(c->st.ymm, 0, sizeof(c->st.ymm));
        c->st.fx.mxcsr = VECTOR_MXCSR_DEFAULT;
        ASSERT_RUNS("480fae2e"); /* xrstor64 */
        assert_memory_equal(c->st.ymm, before.ymm, sizeof(before.ymm));
        assert_int_equal(c->st.fx.mxcsr, 0x9f80);
        assert_true(get_st(0) == 3.25L);
    }
}

static void test_xsave_init(void **ctx)
{
    uint8_t *m = fake_memory(c);

    memset(m, 0xee, 1024);
    memset(m + 512, 0, 64);
    memset(c->st.ymm, 0, sizeof(c->st.ymm));
    c->st.ymm[3][20] = 1; /* AVX alone in use */
    set_mask(7);
    ASSERT_RUNS("480fae36"); /* xsaveopt64 */
    assert_int_equal(load_le64(m + 512), 4);
    assert_int_equal(m[160], 0xee);
    assert_int_equal(m[576 + 16 * 3 + 4], 1);
    assert_int_equal(load_le32(m + 24), VECTOR_MXCSR_DEFAULT);
    c->st.gpr[X86_RCX] = 1;
    ASSERT_RUNS("0f01d0");
    assert_int_equal(c->st.gpr[X86_RAX], 4);
    c->st.gpr[X86_RCX] = 2;
    ASSERT_RAISES("0f01d0", X86_GP);

    /* what XSTATE_BV lacks is initialised, what RFBM lacks is left */
    memset(c->st.ymm, 0x11, sizeof(c->st.ymm));
    set_st(0, 1.0L);
    set_mask(6);
    ASSERT_RUNS("480fae2e");
    assert_int_equal(c->st.ymm[3][0], 0);
    assert_int_equal(c->st.ymm[3][20], 1);
    assert_true(get_st(0) == 1.0L);
}

static void test_xrstor_header(void **ctx)
{
    uint8_t *m = fake_memory(c);

    memset(m, 0, 1024);
    set_mask(7);
    ASSERT_RUNS("0fae2e");
    store_le64(m + 512, 8); /* not in XCR0 */
    ASSERT_RAISES("0fae2e", X86_GP);
    store_le64(m + 512, 0);
    store_le64(m + 520, 1); /* XCOMP_BV in the standard form */
    ASSERT_RAISES("0fae2e", X86_GP);
    store_le64(m + 520, UINT64_C(1) << 63 | 3);
    ASSERT_RUNS("0fae2e");
    store_le64(m + 512, 4); /* beyond XCOMP_BV */
    ASSERT_RAISES("0fae2e", X86_GP);
    store_le64(m + 512, 0);
    m[575] = 1;
    ASSERT_RAISES("0fae2e", X86_GP);
    c->st.gpr[X86_RSI] += 32;
    ASSERT_RAISES("0fae2e", X86_GP);
}

static void test_xsetbv(void **ctx)
{
    static const struct {
        uint64_t v;
        unsigned raised;
    } cases[] = {{1, FAKE_NONE}, {3, FAKE_NONE}, {7, FAKE_NONE}, {0, X86_GP}, {2, X86_GP}, {5, X86_GP}, {15, X86_GP}};

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        set_mask(cases[i].v);
        ASSERT_RAISES("0f01d1", cases[i].raised);
        assert_int_equal(c->st.xcr0, i < 3 ? cases[i].v : 7);
    }
    c->st.seg[X86_SS].attr = 3 << X86_SEG_DPL_SHIFT;
    set_mask(7);
    ASSERT_RAISES("0f01d1", X86_GP);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unmasked_divide),
        TEST(test_unmasked_kinds),
        TEST(test_unmasked_mmx),
        TEST(test_stubs_are_bounded),
        TEST(test_alignment),
        TEST(test_modes),
        TEST(test_bounced),
        TEST(test_32bit_forms),
        TEST(test_masked_moves),
        TEST(test_gather),
        TEST(test_mxcsr),
        TEST(test_x87_exceptions),
        TEST(test_x87_environment),
        TEST(test_fxsave),
        TEST(test_xsave_round_trip),
        TEST(test_xsave_init),
        TEST(test_xrstor_header),
        TEST(test_xsetbv),
    };
    if (!__builtin_cpu_supports("avx2"))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
