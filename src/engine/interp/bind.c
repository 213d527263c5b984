/* See bind.h. */
#include "engine/interp/bind.h"

#include <assert.h>

#define BIND_TABLE(table) table,
static const struct bind_entry *const tables[] = {
#include "engine/interp/binds.def"
    NULL,
};
#undef BIND_TABLE

void op_ud(struct interp *c, const struct insn *in)
{
    interp_raise(c, X86_UD);
}

void op_gp(struct interp *c, const struct insn *in)
{
    interp_raise_error(c, X86_GP, 0);
}

void bind_map_init(struct bind_map *map)
{
    memset(map, 0, sizeof(*map));
    for (size_t i = 0; tables[i]; i++) {
        for (const struct bind_entry *e = tables[i]; e->mnemonic; e++) {
            const struct bind_entry **slot = map->entry[e->mnemonic];
            while (*slot)
                slot++;
            assert(slot < map->entry[e->mnemonic] + BIND_SLOTS);
            *slot = e;
        }
    }
}

/* Extensions that come and go with CPUID. What no table implements needs no line here. */
static bool offered(const struct x86_insn *xi, const struct x86_features *f)
{
    if (xi->insn.mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ) /* to Zydis it is of AVX alone */
        return f->pclmul && f->avx;
    switch (xi->insn.meta.isa_set) {
    case ZYDIS_ISA_SET_ADOX_ADCX:
        return f->adx;
    case ZYDIS_ISA_SET_AES:
        return f->aes;
    case ZYDIS_ISA_SET_AVXAES:
        return f->aes && f->avx;
    case ZYDIS_ISA_SET_AVX:
        return f->avx;
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
        return f->avx2;
    case ZYDIS_ISA_SET_BMI1:
        return f->bmi1;
    case ZYDIS_ISA_SET_BMI2:
        return f->bmi2;
    case ZYDIS_ISA_SET_CLFLUSHOPT:
    case ZYDIS_ISA_SET_CLWB:
        return false;
    case ZYDIS_ISA_SET_CMPXCHG16B:
        return f->cx16;
    case ZYDIS_ISA_SET_F16C:
        return f->f16c;
    case ZYDIS_ISA_SET_FMA:
        return f->fma;
    case ZYDIS_ISA_SET_INVPCID:
        return f->invpcid;
    case ZYDIS_ISA_SET_LZCNT:
        return f->lzcnt;
    case ZYDIS_ISA_SET_MOVBE:
        return f->movbe;
    case ZYDIS_ISA_SET_PCLMULQDQ:
        return f->pclmul;
    case ZYDIS_ISA_SET_POPCNT:
        return f->popcnt;
    case ZYDIS_ISA_SET_RDPID:
        return f->rdpid;
    case ZYDIS_ISA_SET_RDRAND:
        return f->rdrand;
    case ZYDIS_ISA_SET_RDSEED:
        return f->rdseed;
    case ZYDIS_ISA_SET_SHA:
        return f->sha;
    case ZYDIS_ISA_SET_SMAP:
        return f->smap;
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
        return f->sse3;
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return f->ssse3;
    case ZYDIS_ISA_SET_SSE4:
        return f->sse41;
    case ZYDIS_ISA_SET_SSE42:
        return f->sse42;
    case ZYDIS_ISA_SET_XSAVEOPT:
        return f->xsaveopt;
    case ZYDIS_ISA_SET_XSAVEC:
        return f->xsavec;
    default:
        return true;
    }
}

uint16_t bind_reg(ZydisRegister reg)
{
    unsigned id;

    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
            return INTERP_GPR(reg - ZYDIS_REGISTER_AH) + 1;
        return reg < ZYDIS_REGISTER_AH ? INTERP_GPR(reg - ZYDIS_REGISTER_AL)
                                       : INTERP_GPR(reg - ZYDIS_REGISTER_SPL + X86_RSP);
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        id = (unsigned)ZydisRegisterGetId(reg);
        return INTERP_GPR(id);
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        id = (unsigned)ZydisRegisterGetId(reg);
        return id < 16 ? (uint16_t)(offsetof(struct interp, st.ymm) + 32 * id) : INTERP_ZERO;
    default:
        return (uint16_t)ZydisRegisterGetId(reg);
    }
}

static uint16_t address_reg(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_NONE ? INTERP_ZERO : bind_reg(reg);
}

static void resolve_mem(struct insn *in, const struct x86_insn *xi, const ZydisDecodedOperand *op)
{
    bool flat = xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
    const ZydisDecodedOperandMem *m = &op->mem;

    in->disp = m->disp.has_displacement ? m->disp.value : 0;
    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP) {
        in->base = INTERP_BLOCK_RIP;
        in->disp += in->off + in->len;
    } else {
        in->base = address_reg(m->base);
    }
    in->index = address_reg(m->index);
    in->scale = m->scale ? (uint8_t)__builtin_ctz(m->scale) : 0;
    if (m->segment >= ZYDIS_REGISTER_ES && m->segment <= ZYDIS_REGISTER_GS)
        in->seg = (uint8_t)(m->segment - ZYDIS_REGISTER_ES);
    if (!flat || in->seg >= X86_FS)
        in->seg_base = (uint16_t)(offsetof(struct interp, st.seg) + in->seg * sizeof(struct x86_seg) +
                                  offsetof(struct x86_seg, base));
    if (!flat)
        in->prefix |= INSN_SLOW_ADDR;
}

static void resolve_reg(struct insn *in, const ZydisDecodedOperand *op, bool first)
{
    uint16_t reg = bind_reg(op->reg.value);

    switch (op->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        in->reg = reg;
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        in->rm = reg;
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        in->vvvv = reg;
        break;
    default:
        if (first) /* an accumulator form; a ModRM register, if any, comes later and wins */
            in->reg = reg;
    }
}

/* The first memory operand, a visible one if there is any; the first immediate; registers by their place in the encoding. */
static void resolve(struct insn *in, const struct x86_insn *xi)
{
    const ZydisDecodedOperand *mem = NULL;
    bool imm = false;

    in->base = in->index = in->seg_base = INTERP_ZERO;
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        switch (op->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            resolve_reg(in, op, i == 0);
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (!mem)
                mem = op;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            if (!imm)
                in->imm = op->imm.value.u;
            imm = true;
            break;
        default:
            break;
        }
    }
    if (mem)
        resolve_mem(in, xi, mem);
}

bool bind_is_scan(const struct x86_insn *xi, const struct x86_features *f)
{
    return (xi->insn.mnemonic == ZYDIS_MNEMONIC_LZCNT && !f->lzcnt) ||
           (xi->insn.mnemonic == ZYDIS_MNEMONIC_TZCNT && !f->bmi1);
}

void bind_insn(const struct bind_map *map, struct insn *in, const struct x86_insn *xi, const struct x86_cpuid *cpuid)
{
    bool scan = bind_is_scan(xi, &cpuid->feat);
    ZydisMnemonic mnemonic = !scan                                       ? xi->insn.mnemonic
                             : xi->insn.mnemonic == ZYDIS_MNEMONIC_LZCNT ? ZYDIS_MNEMONIC_BSR
                                                                         : ZYDIS_MNEMONIC_BSF;
    const struct bind_entry *const *entry = map->entry[mnemonic];
    uint16_t off = in->off;

    memset(in, 0, sizeof(*in));
    in->off = off;
    in->len = xi->insn.length;
    in->mnemonic = (uint16_t)mnemonic;
    in->size = xi->insn.operand_width / 8;
    in->addr = xi->insn.address_width / 8;
    if (xi->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        in->prefix |= INSN_LOCK;
    if (xi->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        in->prefix |= INSN_REP;
    if (xi->insn.attributes & ZYDIS_ATTRIB_HAS_REPNE)
        in->prefix |= INSN_REPNE;
    resolve(in, xi);
    for (unsigned i = 0; i < BIND_SLOTS && entry[i] && !in->fn; i++) {
        if (scan || offered(xi, &cpuid->feat))
            in->fn = entry[i]->bind(xi, in, cpuid);
    }
    if (!in->fn)
        in->fn = op_ud;
}

enum bind_end bind_end(const struct x86_insn *xi)
{
    switch (xi->insn.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
        return xi->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || xi->insn.mnemonic == ZYDIS_MNEMONIC_IRET ||
                       xi->insn.mnemonic == ZYDIS_MNEMONIC_IRETD || xi->insn.mnemonic == ZYDIS_MNEMONIC_IRETQ
                   ? BIND_STOPS
                   : BIND_BRANCHES;
    case ZYDIS_CATEGORY_STRINGOP:
        return xi->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)
                   ? BIND_BRANCHES
                   : BIND_CONTINUES;
    case ZYDIS_CATEGORY_FLAGOP: /* CLI, STI, STAC, CLAC and the harmless ones */
        return xi->insn.mnemonic == ZYDIS_MNEMONIC_CLI || xi->insn.mnemonic == ZYDIS_MNEMONIC_STI ||
                       xi->insn.mnemonic == ZYDIS_MNEMONIC_CLAC || xi->insn.mnemonic == ZYDIS_MNEMONIC_STAC
                   ? BIND_STOPS
                   : BIND_CONTINUES;
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_SMAP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_XSAVE:
        return BIND_STOPS;
    default:
        break;
    }
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return BIND_STOPS;
    default:
        break;
    }
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        ZydisRegisterClass class = bind_is_reg(op) ? ZydisRegisterGetClass(op->reg.value) : ZYDIS_REGCLASS_INVALID;
        if ((op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            (class == ZYDIS_REGCLASS_SEGMENT || class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG))
            return BIND_STOPS;
    }
    return BIND_CONTINUES;
}

enum bind_form bind_form2(const struct x86_insn *xi, struct insn *in)
{
    const ZydisDecodedOperand *dst = &xi->op[0], *src = &xi->op[1];

    in->size = (uint8_t)(dst->size / 8);
    if (bind_is_mem(dst)) {
        if (bind_is_imm(src))
            return BIND_MI;
        in->reg = bind_reg(src->reg.value);
        return BIND_MR;
    }
    in->reg = bind_reg(dst->reg.value);
    if (bind_is_mem(src))
        return BIND_RM;
    if (bind_is_imm(src))
        return BIND_RI;
    in->rm = bind_reg(src->reg.value);
    return BIND_RR;
}
