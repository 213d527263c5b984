/* See vector_fake.h: stands in for mmu.c, seg.c and fault.c. */
#include "vector_fake.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"
#include "engine/interp/vector.h"
#include "unit.h"

extern const struct bind_entry vector_binds[], vector_mask_binds[], vector_x87_binds[], vector_xsave_binds[];

struct fake {
    struct x86_cpuid cpuid;
    struct interp c;
    uint8_t memory[FAKE_SIZE] __attribute__((aligned(64)));
    bool device;
    struct insn insn;
};

static uint16_t reg_offset(ZydisRegister reg)
{
    unsigned id = (unsigned)ZydisRegisterGetId(reg);

    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_INVALID:
        return INTERP_ZERO;
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        return (uint16_t)(offsetof(struct interp, st.ymm) + 32 * id);
    case ZYDIS_REGCLASS_MMX:
        return (uint16_t)id;
    default:
        return INTERP_GPR(id);
    }
}

static void resolve(struct insn *in, const ZydisDecodedOperand *op)
{
    if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        in->base = reg_offset(op->mem.base);
        in->index = reg_offset(op->mem.index);
        in->scale = op->mem.scale ? (uint8_t)__builtin_ctz(op->mem.scale) : 0;
        in->disp = op->mem.disp.value;
    } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
        in->reg = reg_offset(op->reg.value);
    } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
        in->rm = reg_offset(op->reg.value);
    } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD) {
        in->vvvv = reg_offset(op->reg.value);
    }
}

interp_fn fake_bind(const struct x86_insn *xi, struct insn *in)
{
    static const struct bind_entry *const tables[] = {vector_binds, vector_mask_binds, vector_x87_binds,
                                                      vector_xsave_binds};
    static const struct x86_cpuid cpuid;

    memset(in, 0, sizeof(*in));
    in->base = in->index = in->seg_base = INTERP_ZERO;
    in->addr = 8;
    in->seg = X86_DS;
    in->len = xi->insn.length;
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        resolve(in, &xi->op[i]);
    for (unsigned t = 0; t < ARRAY_SIZE(tables); t++)
        for (const struct bind_entry *e = tables[t]; e->mnemonic; e++)
            if (e->mnemonic == xi->insn.mnemonic)
                return e->bind(xi, in, &cpuid);
    return NULL;
}

unsigned fake_exec(struct interp *c, const char *hex)
{
    struct insn *in = &CONTAINER_OF(c, struct fake, c)->insn;
    struct x86_insn xi;
    uint8_t code[16] = {0};
    unsigned n, byte;

    for (n = 0; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        code[n] = (uint8_t)byte;
    if (x86_decode(&xi, c->code_size, false, code, n) != X86_DECODE_OK)
        return X86_UD;
    interp_fn fn = fake_bind(&xi, in);
    if (!fn)
        return X86_UD;
    in->fn = fn;
    c->block_rip = 0x1000;
    return fake_run(c, in);
}

struct interp *fake_open(void)
{
    struct fake *f = aligned_alloc(64, align_up(sizeof(*f), 64));
    assert_non_null(f);
    memset(f, 0, sizeof(*f));
    tlb_init(&f->c.tlb_none);
    for (unsigned i = 0; i < MMU_N; i++)
        f->c.tlb[i] = &f->c.tlb_none;
    struct x86_cpuid_conf conf = {.n_cpus = 1, .tsc_hz = 1000000000, .phys_bits = 40};
    x86_cpuid_init(&f->cpuid, &conf);
    f->c.conf.cpuid = &f->cpuid;
    f->c.st.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_MP;
    f->c.st.cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    f->c.st.xcr0 = 7;
    f->c.st.fx.fcw = 0x37f;
    f->c.st.fx.mxcsr = VECTOR_MXCSR_DEFAULT;
    f->c.st.gpr[X86_RSI] = FAKE_BASE;
    f->c.code_size = 8;
    assert_int_equal(vector_open(&f->c.vector, NULL), 0);
    return &f->c;
}

void fake_close(struct interp *c)
{
    vector_close(c->vector);
    free(CONTAINER_OF(c, struct fake, c));
}

uint8_t *fake_memory(struct interp *c)
{
    return CONTAINER_OF(c, struct fake, c)->memory;
}

void fake_copy(struct interp *to, const struct interp *from)
{
    to->st = from->st;
    memcpy(fake_memory(to), fake_memory((struct interp *)from), FAKE_SIZE);
}

void fake_set_device(struct interp *c, bool device)
{
    CONTAINER_OF(c, struct fake, c)->device = device;
}

unsigned fake_run(struct interp *c, const struct insn *in)
{
    int raised = setjmp(c->unwind);
    if (raised)
        return c->fault.vector;
    c->cur = in;
    in->fn(c, in);
    return FAKE_NONE;
}

void interp_raise(struct interp *c, enum x86_vector vector)
{
    c->fault.vector = vector;
    longjmp(c->unwind, 1);
}

void interp_raise_error(struct interp *c, enum x86_vector vector, uint32_t error)
{
    c->fault.error = error;
    interp_raise(c, vector);
}

static uint8_t *host(struct interp *c, uint64_t lin, unsigned len)
{
    if (lin < FAKE_BASE || lin - FAKE_BASE > FAKE_SIZE || len > FAKE_SIZE - (lin - FAKE_BASE)) {
        c->fault.cr2 = lin;
        interp_raise(c, X86_PF);
    }
    return fake_memory(c) + (lin - FAKE_BASE);
}

uint8_t *mmu_host_read(struct interp *c, uint64_t lin, unsigned len)
{
    uint8_t *p = host(c, lin, len);
    return CONTAINER_OF(c, struct fake, c)->device ? NULL : p;
}

uint8_t *mmu_host_write(struct interp *c, uint64_t lin, unsigned len)
{
    return mmu_host_read(c, lin, len);
}

void mmu_check_write(struct interp *c, uint64_t lin, unsigned len)
{
    host(c, lin, len);
}

void mmu_load_bytes(struct interp *c, uint64_t lin, void *buf, unsigned len)
{
    memcpy(buf, host(c, lin, len), len);
}

void mmu_store_bytes(struct interp *c, uint64_t lin, const void *buf, unsigned len)
{
    memcpy(host(c, lin, len), buf, len);
}

uint64_t mmu_load_slow(struct interp *c, uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    mmu_load_bytes(c, lin, &v, size);
    return v;
}

void mmu_store_slow(struct interp *c, uint64_t lin, uint64_t v, unsigned size)
{
    mmu_store_bytes(c, lin, &v, size);
}

uint64_t seg_lin(struct interp *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    return c->st.seg[seg].base + off;
}
