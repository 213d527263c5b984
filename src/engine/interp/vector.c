/* See vector.h. */
#include "engine/interp/vector.h"

#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"

/* ---- what the mode allows ---- */

void vector_check_sse(struct interp *c)
{
    if ((c->st.cr0 & X86_CR0_EM) || !(c->st.cr4 & X86_CR4_OSFXSR))
        interp_raise(c, X86_UD);
    if (c->st.cr0 & X86_CR0_TS)
        interp_raise(c, X86_NM);
}

/* Real and virtual-8086 mode have no VEX: the decoder sees to that. */
void vector_check_avx(struct interp *c)
{
    const uint64_t needed = X86_XCR0_SSE | X86_XCR0_AVX;

    if (!(c->st.cr4 & X86_CR4_OSXSAVE) || (c->st.xcr0 & needed) != needed)
        interp_raise(c, X86_UD);
    if (c->st.cr0 & X86_CR0_TS)
        interp_raise(c, X86_NM);
}

void vector_check_mmx(struct interp *c, unsigned flags)
{
    if ((c->st.cr0 & X86_CR0_EM) || ((flags & VECTOR_SSE) && !(c->st.cr4 & X86_CR4_OSFXSR)))
        interp_raise(c, X86_UD);
    if (c->st.cr0 & X86_CR0_TS)
        interp_raise(c, X86_NM);
    vector_x87_check_pending(c);
}

static inline void check_mode(struct interp *c, unsigned flags)
{
    if (flags & VECTOR_AVX)
        vector_check_avx(c);
    else if (flags & VECTOR_MMX)
        vector_check_mmx(c, flags);
    else
        vector_check_sse(c);
}

/* ---- running ---- */

/* True when an unmasked SIMD exception stopped it. */
static inline bool exec(struct interp *c, const struct insn *in, void *mem)
{
    if (UNLIKELY((in->reg & VECTOR_MXCSR) && (~c->st.fx.mxcsr & VECTOR_MXCSR_MASKS)))
        return vector_stub_trapped(c, in, mem);
    return vector_stub(c, in)(c, mem);
}

/* FXSAVE in the stub brings the host's pointers; MMX instructions leave the guest's alone (SDM Vol. 1 table 9-2). */
static bool exec_x87_state(struct interp *c, const struct insn *in, void *mem)
{
    struct x86_fxsave *fx = &c->st.fx;
    uint16_t fop = fx->fop;
    uint64_t fip = fx->fip, fdp = fx->fdp;
    uint32_t mxcsr_mask = fx->mxcsr_mask;

    bool trapped = exec(c, in, mem);
    fx->fop = fop;
    fx->fip = fip;
    fx->fdp = fdp;
    fx->mxcsr_mask = mxcsr_mask;
    return trapped;
}

void vector_exec(struct interp *c, const struct insn *in, void *mem)
{
    vector_x87_fetch(c, true); /* a stub with MMX registers or none at all may turn the host's unit to MMX */
    bool trapped = in->reg & (VECTOR_MMX | VECTOR_X87) ? exec_x87_state(c, in, mem) : exec(c, in, mem);

    if (UNLIKELY(trapped))
        interp_raise(c, c->st.cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
}

/* What is not plain RAM within one page goes through a buffer: devices, and operands that cross pages. */
static void exec_bounced(struct interp *c, const struct insn *in, uint64_t lin)
{
    uint8_t buf[128] __attribute__((aligned(32)));
    unsigned size = in->size;

    if (in->reg & VECTOR_STORE) {
        mmu_check_write(c, lin, size);
        vector_exec(c, in, buf);
        if (!(in->reg & VECTOR_X87) || vector_x87_stored(&c->st.fx))
            mmu_store_bytes(c, lin, buf, size);
    } else {
        mmu_load_bytes(c, lin, buf, size);
        vector_exec(c, in, buf);
    }
}

void vector_exec_mem(struct interp *c, const struct insn *in, uint64_t lin)
{
    unsigned size = in->size;
    uint8_t *host;

    if (in->reg & VECTOR_STORE) {
        host = mmu_hit_write(c, lin, size);
        if (UNLIKELY(!host))
            host = mmu_host_write(c, lin, size);
    } else {
        host = mmu_hit_read(c, lin, size);
        if (UNLIKELY(!host))
            host = mmu_host_read(c, lin, size);
    }
    if (LIKELY(host != NULL))
        vector_exec(c, in, host);
    else
        exec_bounced(c, in, lin);
}

static inline void run_mem(struct interp *c, const struct insn *in)
{
    uint64_t lin = insn_lin(c, in, in->size, in->reg & VECTOR_STORE);

    if (UNLIKELY((in->reg & VECTOR_ALIGNED) && (lin & (in->size - 1u))))
        interp_raise_error(c, X86_GP, 0);
    vector_exec_mem(c, in, lin);
}

/* Handlers for each kind; the commonest two skip what does not concern them. */
static void op_sse_reg(struct interp *c, const struct insn *in)
{
    if (UNLIKELY((c->st.cr0 & (X86_CR0_EM | X86_CR0_TS)) || !(c->st.cr4 & X86_CR4_OSFXSR)))
        vector_check_sse(c);
    vector_exec(c, in, NULL);
}

static void op_sse_mem(struct interp *c, const struct insn *in)
{
    if (UNLIKELY((c->st.cr0 & (X86_CR0_EM | X86_CR0_TS)) || !(c->st.cr4 & X86_CR4_OSFXSR)))
        vector_check_sse(c);
    run_mem(c, in);
}

static void op_other_reg(struct interp *c, const struct insn *in)
{
    check_mode(c, in->reg);
    vector_exec(c, in, NULL);
}

static void op_other_mem(struct interp *c, const struct insn *in)
{
    check_mode(c, in->reg);
    run_mem(c, in);
}

/* ---- binding ---- */

/* String instructions and extensions that no CPUID of vireo offers share some mnemonics. */
static bool offered_set(const ZydisDecodedInstruction *insn)
{
    return insn->meta.category != ZYDIS_CATEGORY_STRINGOP &&
           (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) &&
           insn->meta.isa_set != ZYDIS_ISA_SET_VAES && insn->meta.isa_set != ZYDIS_ISA_SET_VPCLMULQDQ;
}

/* Legacy forms whose 16-byte operand may lie anywhere (SDM Vol. 2A table 2-21). */
static bool unaligned_form(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return true;
    default:
        return false;
    }
}

static bool aligned(const ZydisDecodedInstruction *insn, unsigned size)
{
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return insn->meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX1;
    return size == 16 && !unaligned_form(insn->mnemonic);
}

/* By exception class (SDM Vol. 2A 2.4): those that may raise SIMD floating-point exceptions are those that read MXCSR. */
static bool reads_mxcsr(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
        return true;
    default:
        break;
    }
    switch (insn->mnemonic) { /* between MMX and XMM registers: no class */
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTPI2PS:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
        return true;
    default:
        return false;
    }
}

static unsigned operand_flags(const ZydisDecodedOperand *op)
{
    if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? VECTOR_STORE : 0;
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return 0;
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_MMX:
        return VECTOR_MMX;
    case ZYDIS_REGCLASS_XMM:
        return VECTOR_SSE;
    case ZYDIS_REGCLASS_YMM:
        return VECTOR_SSE | VECTOR_WIDE;
    default:
        return 0;
    }
}

static interp_fn bind_simd(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    const ZydisDecodedInstruction *insn = &xi->insn;
    bool mem = false;

    if (!offered_set(insn))
        return NULL;
    in->reg = 0;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        in->reg |= (uint16_t)operand_flags(op);
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            mem = true;
            in->size = (uint8_t)(op->size / 8);
        }
    }
    if (insn->mnemonic == ZYDIS_MNEMONIC_EMMS)
        in->reg |= VECTOR_MMX;
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        in->reg |= VECTOR_AVX;
    if (reads_mxcsr(insn))
        in->reg |= VECTOR_MXCSR;
    if (mem && aligned(insn, in->size))
        in->reg |= VECTOR_ALIGNED;

    in->imm = vector_stub_key(xi);
    in->extra = NULL;
    if (!in->imm)
        return NULL;
    if (in->reg & (VECTOR_AVX | VECTOR_MMX))
        return mem ? op_other_mem : op_other_reg;
    return mem ? op_sse_mem : op_sse_reg;
}

#define VECTOR_DEF_SIMD(name) {ZYDIS_MNEMONIC_##name, bind_simd},
const struct bind_entry vector_binds[] = {
#include "engine/interp/vector.def"
    {0},
};
