/*
 * SIMD and x87 of the interpreter against the host: every encoding the decoder knows is run by the handler and natively in this
 * process, from the same random state, and all registers are compared. Memory is a small stand-in for the MMU.
 */
#include "engine/interp/vector.h"

#include <stdio.h>
#include <stdlib.h>

#include "jit/arena.h"
#include "unit.h"
#include "vector_fake.h"

extern const struct bind_entry vector_x87_binds[], vector_xsave_binds[];

static struct jit_arena arena;
static struct interp *vcpu, *reference;
static uint64_t seed = 0x243f6a8885a308d3;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

/* ---- the host's side: the whole state in, the instruction, the whole state out ---- */

struct code {
    uint8_t *p;
};

static void put(struct code *e, const void *bytes, unsigned n)
{
    memcpy(e->p, bytes, n);
    e->p += n;
}

#define PUT(e, ...) put(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put_state(struct code *e, unsigned reg, size_t off)
{
    uint32_t disp = (uint32_t)off;
    PUT(e, (uint8_t)(0x80 | (reg & 7) << 3 | 7));
    put(e, &disp, 4);
}

static void put_gprs(struct code *e, uint8_t opcode)
{
    for (unsigned r = 0; r < 16; r++)
        if (r != X86_RSP && r != X86_RDI) {
            PUT(e, (uint8_t)(0x48 | (r >= 8) << 2), opcode);
            put_state(e, r, INTERP_GPR(r));
        }
}

static void put_vectors(struct code *e, uint8_t opcode)
{
    for (unsigned r = 0; r < 16; r++) {
        PUT(e, 0xc5, r < 8 ? 0xfc : 0x7c, opcode);
        put_state(e, r, offsetof(struct interp, st.ymm) + 32 * r);
    }
}

static void native(struct interp *c, const uint8_t *bytes, unsigned len)
{
    struct code e = {jit_arena_alloc(&arena, 1024)};
    const uint8_t *at = jit_arena_exec(&arena, e.p);
    const size_t flags = offsetof(struct interp, st.rflags), mxcsr = offsetof(struct interp, st.fx.mxcsr);

    PUT(&e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x57); /* push callee-saved, rdi */
    PUT(&e, 0x48, 0x0f, 0xae);                                                 /* fxrstor64 */
    put_state(&e, 1, offsetof(struct interp, st.fx));
    put_vectors(&e, 0x10);
    put_gprs(&e, 0x8b);
    PUT(&e, 0xff); /* push rflags; popfq */
    put_state(&e, 6, flags);
    PUT(&e, 0x9d, 0x48, 0x8b); /* mov rdi, guest's */
    put_state(&e, 7, INTERP_GPR(X86_RDI));
    put(&e, bytes, len);
    PUT(&e, 0x9c, 0x57, 0x48, 0x8b, 0x7c, 0x24, 0x10); /* pushfq; push rdi; mov rdi, [rsp + 16] */
    put_gprs(&e, 0x89);
    put_vectors(&e, 0x11);
    PUT(&e, 0x0f, 0xae);
    put_state(&e, 3, mxcsr);
    PUT(&e, 0x58, 0x48, 0x89); /* pop rax */
    put_state(&e, 0, INTERP_GPR(X86_RDI));
    PUT(&e, 0x58, 0x48, 0x89);
    put_state(&e, 0, flags);
    PUT(&e, 0x48, 0x0f, 0xae); /* fxsave64, fninit, vzeroupper */
    put_state(&e, 0, offsetof(struct interp, st.fx));
    PUT(&e, 0xdb, 0xe3, 0xc5, 0xf8, 0x77);
    PUT(&e, 0x5f, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);

    ((void (*)(struct interp *))(uintptr_t)at)(c);
    uint32_t host = VECTOR_MXCSR_DEFAULT;
    __asm__ volatile("ldmxcsr %0" : : "m"(host));
    jit_arena_reset(&arena);
}

/* ---- random states ---- */

/* Numbers of every kind: zeroes, denormals, infinities, NaNs and ordinary ones. */
static void random_vector(uint8_t *p)
{
    static const uint32_t odd32[] = {0,          0x80000000, 1,          0x7f800000, 0xff800000, 0x7fc00000,
                                     0x7f800001, 0x3f800000, 0xbf800000, 0x007fffff, 0x7f7fffff, 0x4f000000};
    static const uint64_t odd64[] = {0,
                                     UINT64_C(1) << 63,
                                     1,
                                     UINT64_C(0x7ff0000000000000),
                                     UINT64_C(0x7ff0000000000001),
                                     UINT64_C(0x7ff8000000000000),
                                     UINT64_C(0x3ff0000000000000),
                                     UINT64_C(0x000fffffffffffff),
                                     UINT64_C(0xc3e0000000000000)};
    unsigned kind = rnd() % 4;
    for (unsigned i = 0; i < 4; i++)
        store_le64(p + 8 * i, rnd());
    for (unsigned i = 0; i < 8 && kind == 1; i++)
        store_le32(p + 4 * i, rnd() % 3 ? odd32[rnd() % ARRAY_SIZE(odd32)] : 0x3f800000 + (uint32_t)(rnd() >> 40));
    for (unsigned i = 0; i < 4 && kind == 2; i++)
        store_le64(p + 8 * i, rnd() % 3 ? odd64[rnd() % ARRAY_SIZE(odd64)] : (UINT64_C(0x3ff0) << 48) + (rnd() >> 12));
}

static void random_state(struct interp *c, bool in_x87)
{
    struct x86_state *st = &c->st;

    for (unsigned i = 0; i < 16; i++) {
        st->gpr[i] = rnd() >> rnd() % 64;
        random_vector(st->ymm[i]);
    }
    st->gpr[X86_RSI] = FAKE_BASE;
    st->rflags = X86_FLAG_FIXED | X86_FLAG_IF | (rnd() & X86_FLAGS_STATUS);
    st->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_MP;
    st->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    st->xcr0 = 7;
    memset(&st->fx, 0, sizeof(st->fx));
    /* rounding, DAZ, FTZ and flags at random, exceptions masked */
    st->fx.mxcsr = VECTOR_MXCSR_DEFAULT | (rnd() & 1 ? (uint32_t)rnd() & 0xe07f : 0);
    st->fx.mxcsr_mask = 0xffff;
    st->fx.fcw = (uint16_t)(0x7f | (in_x87 ? rnd() & 0xf00 : 0x300));
    st->fx.fsw = (uint16_t)(rnd() & 0x7f7f & ~(in_x87 ? 0 : 0x3f));
    st->fx.ftw = (uint8_t)rnd();
    for (unsigned i = 0; i < 8; i++) {
        uint8_t v[32];
        random_vector(v);
        if (rnd() % 2)
            store_le16(v + 8, (uint16_t)(0x3ff0 + rnd() % 32));
        if (rnd() % 4)
            v[7] |= 0x80;
        memcpy(st->fx.st[i], v, 10);
    }
    random_vector(fake_memory(c));
    random_vector(fake_memory(c) + 32);
    c->code_size = 8;
}

/* ---- one instruction both ways ---- */

static void fail_with(const char *what, const uint8_t *bytes, const struct x86_insn *xi)
{
    char hex[48] = "";
    for (unsigned i = 0; i < xi->insn.length; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    fail_msg("%s %s: %s differs", ZydisMnemonicGetString(xi->insn.mnemonic), hex, what);
}

static void compare(const uint8_t *bytes, const struct x86_insn *xi)
{
    struct x86_state *a = &vcpu->st, *b = &reference->st;

    if (memcmp(a->ymm, b->ymm, sizeof(a->ymm)))
        fail_with("vector", bytes, xi);
    if (memcmp(a->gpr, b->gpr, sizeof(a->gpr)))
        fail_with("gpr", bytes, xi);
    if ((a->rflags ^ b->rflags) & X86_FLAGS_STATUS)
        fail_with("rflags", bytes, xi);
    if (a->fx.mxcsr != b->fx.mxcsr)
        fail_with("mxcsr", bytes, xi);
    if (a->fx.fcw != b->fx.fcw || a->fx.fsw != b->fx.fsw || a->fx.ftw != b->fx.ftw)
        fail_with("x87 status", bytes, xi);
    if (memcmp(a->fx.st, b->fx.st, sizeof(a->fx.st)))
        fail_with("x87 register", bytes, xi);
    if (memcmp(fake_memory(vcpu), fake_memory(reference), FAKE_SIZE))
        fail_with("memory", bytes, xi);
}

/* The native run needs its stack and its pointer to memory. */
static bool uses_reserved(const struct x86_insn *xi)
{
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        ZydisRegister reg = xi->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER ? xi->op[i].reg.value : ZYDIS_REGISTER_NONE;
        reg = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
        if (reg == ZYDIS_REGISTER_RSP || reg == ZYDIS_REGISTER_RSI)
            return true;
    }
    return false;
}

/* Faults at random, or at an address of its own: vector_state_test.c has those. */
static bool for_state_test(const struct x86_insn *xi)
{
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return true;
    default:
        break;
    }
    for (const struct bind_entry *e = vector_xsave_binds; e->mnemonic; e++)
        if (e->mnemonic == xi->insn.mnemonic)
            return true;
    return false;
}

/* Whether it was something to test. */
static bool try_both(const uint8_t *bytes)
{
    struct x86_insn xi;
    struct insn in;

    if (x86_decode(&xi, 8, false, bytes, 15) != X86_DECODE_OK || uses_reserved(&xi) || for_state_test(&xi) ||
        ((xi.insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) && xi.insn.raw.modrm.mod != 3 && xi.insn.raw.modrm.rm != 6))
        return false;
    interp_fn fn = fake_bind(&xi, &in);
    if (!fn)
        return false;
    in.fn = fn;
    bool x87 = xi.insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && xi.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    for (unsigned i = 0; i < 3; i++) {
        random_state(vcpu, x87);
        fake_copy(reference, vcpu);
        reference->st.gpr[X86_RSI] = (uintptr_t)fake_memory(reference);
        unsigned raised = fake_run(vcpu, &in);
        if (raised == X86_MF || raised == X86_UD)
            fail_with("exception", bytes, &xi);
        native(reference, bytes, xi.insn.length);
        reference->st.gpr[X86_RSI] = FAKE_BASE;
        compare(bytes, &xi);
    }
    return true;
}

static uint8_t random_modrm(void)
{
    uint8_t m = (uint8_t)rnd();
    return m & 0x80 ? m | 0xc0 : (uint8_t)((m & 0x38) | 6);
}

static void test_legacy(void **ctx)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    unsigned n = 0;

    for (unsigned i = 0; i < 4 * 3 * 256 * 16; i++) {
        uint8_t code[16] = {0}, *p = code;
        unsigned map_index = i / 4 % 3, opcode = i / 12 % 256;
        if (prefixes[i % 4])
            *p++ = prefixes[i % 4];
        uint8_t modrm = random_modrm();
        if (rnd() & 1)
            *p++ = (uint8_t)(0x40 | (rnd() & (modrm >= 0xc0 ? 0xd : 0xc)));
        *p++ = 0x0f;
        if (map_index)
            *p++ = map_index == 1 ? 0x38 : 0x3a;
        *p++ = (uint8_t)opcode;
        *p++ = modrm;
        *p = (uint8_t)rnd();
        n += try_both(code);
    }
    assert_true(n > 2000);
}

static void test_vex(void **ctx)
{
    unsigned n = 0;

    for (unsigned i = 0; i < 4 * 3 * 4 * 256 * 8; i++) {
        uint8_t code[16] = {0xc4};
        code[4] = random_modrm();
        code[1] = (uint8_t)((rnd() & 0xe0) | (code[4] < 0xc0 ? 0x60 : 0) | (i / 4 % 3 + 1));
        code[2] = (uint8_t)(i % 4 | (i / 12 % 4 & 1) << 2 | (i / 12 % 4 & 2) << 6 | (rnd() & 1 ? rnd() & 0x78 : 0x78));
        code[3] = (uint8_t)(i / 48);
        code[5] = (uint8_t)rnd();
        n += try_both(code);
    }
    assert_true(n > 2000);
}

static void test_x87(void **ctx)
{
    unsigned n = 0;

    for (unsigned i = 0; i < 8 * 256 * 8; i++) {
        uint8_t code[16] = {(uint8_t)(0xd8 | i % 8), (uint8_t)(i / 8)};
        struct x86_insn xi;
        if (x86_decode(&xi, 8, false, code, 15) != X86_DECODE_OK)
            continue;
        for (const struct bind_entry *e = vector_x87_binds; e->mnemonic; e++)
            if (e->mnemonic == xi.insn.mnemonic && e->mnemonic != ZYDIS_MNEMONIC_FNSTENV &&
                e->mnemonic != ZYDIS_MNEMONIC_FLDENV && e->mnemonic != ZYDIS_MNEMONIC_FNSAVE &&
                e->mnemonic != ZYDIS_MNEMONIC_FRSTOR)
                n += try_both(code);
    }
    assert_true(n > 2000);
}

static int setup(void **ctx)
{
    vcpu = fake_open();
    reference = fake_open();
    return jit_arena_open(&arena, 4096, NULL);
}

static int teardown(void **ctx)
{
    fake_close(vcpu);
    fake_close(reference);
    jit_arena_close(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_vex),
        cmocka_unit_test(test_x87),
    };
    if (!__builtin_cpu_supports("avx2"))
        return 77;
    return cmocka_run_group_tests(tests, setup, teardown);
}
