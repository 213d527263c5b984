#include "forms.h"

#include <cpuid.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "seq.h"

/* A bit of CPUID, for what not every compiler knows by name. */
enum cpuid_reg { EAX, EBX, ECX, EDX };
static bool cpuid_has(unsigned leaf, enum cpuid_reg reg, unsigned bit)
{
    unsigned r[4] = {0};

    return __get_cpuid_count(leaf, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) && (r[reg] >> bit & 1);
}

/* Which instruction sets are in x86-64-v3 and what vireo adds to it; FORM_N_CLASSES for the others. */
static enum form_class isa_class(ZydisISASet isa)
{
    switch (isa) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_POPCNT:
        return FORM_INTEGER;
    case ZYDIS_ISA_SET_ADOX_ADCX:
        return cpuid_has(7, EBX, 19) ? FORM_INTEGER : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_BMI1:
        return __builtin_cpu_supports("bmi") ? FORM_INTEGER : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_BMI2:
        return __builtin_cpu_supports("bmi2") ? FORM_INTEGER : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_LZCNT:
        return cpuid_has(0x80000001, ECX, 5) ? FORM_INTEGER : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_MOVBE:
        return cpuid_has(1, ECX, 22) ? FORM_INTEGER : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87:
        return FORM_X87;
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return FORM_MMX;
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
        return FORM_SSE;
    case ZYDIS_ISA_SET_AES:
        return __builtin_cpu_supports("aes") ? FORM_SSE : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_PCLMULQDQ:
        return __builtin_cpu_supports("pclmul") ? FORM_SSE : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_SHA:
        return cpuid_has(7, EBX, 29) ? FORM_SSE : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_AVX:
        return __builtin_cpu_supports("avx") ? FORM_AVX : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_AVXAES:
        return __builtin_cpu_supports("avx") && __builtin_cpu_supports("aes") ? FORM_AVX : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
        return __builtin_cpu_supports("avx2") ? FORM_AVX : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_FMA:
        return __builtin_cpu_supports("fma") ? FORM_AVX : FORM_N_CLASSES;
    case ZYDIS_ISA_SET_F16C:
        return __builtin_cpu_supports("avx") && cpuid_has(1, ECX, 29) ? FORM_AVX : FORM_N_CLASSES;
    default:
        return FORM_N_CLASSES;
    }
}

/* What cannot be compared: it leaves the sandbox, or shows the host. Jumps and calls are made by the generator itself. */
static bool denied(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_SGDT: /* UMIP: Linux answers these itself */
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR: /* the host's descriptors */
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS: /* segment loads */
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_INSB: /* #GP and #PF compete */
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_SYSEXIT: /* not in AMD's long mode */
        return true;
    default:
        return false;
    }
}

static bool privileged(const ZydisDecodedInstruction *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
        return true;
    default:
        return insn->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;
    }
}

bool forms_allow(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    if (denied(insn->mnemonic) || isa_class(insn->meta.isa_set) == FORM_N_CLASSES)
        return false;
    if (insn->meta.category == ZYDIS_CATEGORY_COND_BR)
        return false;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        if (ops[i].type == ZYDIS_OPERAND_TYPE_POINTER)
            return false;
        if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(ops[i].reg.value);
        if (class == ZYDIS_REGCLASS_SEGMENT && (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return false;
        /* A debug or control register that does not exist raises #UD on some CPUs and #GP on others. */
        if (class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG || class == ZYDIS_REGCLASS_TEST)
            if (ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
                return false;
    }
    return true;
}

static enum form_class form_class_of(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    if (privileged(insn))
        return FORM_PRIVILEGED;
    for (unsigned i = 0; i < insn->operand_count_visible; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_MMX)
            return FORM_MMX;
    return isa_class(insn->meta.isa_set);
}

static bool same_operand(const struct form *a, const struct form *b, unsigned i)
{
    const ZydisEncoderOperand *x = &a->req.operands[i], *y = &b->req.operands[i];

    if (x->type != y->type || a->vary[i] != b->vary[i] || a->size[i] != b->size[i])
        return false;
    if (x->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return true;
    return a->vary[i] ? ZydisRegisterGetClass(x->reg.value) == ZydisRegisterGetClass(y->reg.value)
                      : x->reg.value == y->reg.value;
}

static bool same_form(const struct form *a, const struct form *b)
{
    if (a->mnemonic != b->mnemonic || a->req.prefixes != b->req.prefixes ||
        a->req.operand_count != b->req.operand_count || a->req.allowed_encodings != b->req.allowed_encodings ||
        a->imm_size != b->imm_size || a->req.operand_size_hint != b->req.operand_size_hint)
        return false;
    for (unsigned i = 0; i < a->req.operand_count; i++)
        if (!same_operand(a, b, i))
            return false;
    return true;
}

static int add(struct forms *forms, const struct form *form)
{
    /* Equal forms come from neighbouring opcodes, so a look at the last few finds nearly all; the rest only weighs more. */
    for (size_t i = forms->n; i > 0 && i + 64 > forms->n; i--)
        if (same_form(&forms->form[i - 1], form))
            return 0;
    if (forms->n == forms->room) {
        size_t room = forms->room ? 2 * forms->room : 4096;
        struct form *grown = realloc(forms->form, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        forms->form = grown;
        forms->room = room;
    }
    forms->form[forms->n++] = *form;
    return 0;
}

/* Adds the form of which `bytes` is an example, if it is one. */
static int try(struct forms *forms, const ZydisDecoder *decoder, const uint8_t *bytes, unsigned len)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    struct form form = {0};

    if (ZYAN_FAILED(ZydisDecoderDecodeFull(decoder, bytes, len, &insn, ops)) || !forms_allow(&insn, ops))
        return 0;
    form.mnemonic = insn.mnemonic;
    form.class = form_class_of(&insn, ops);
    if (ZYAN_FAILED(ZydisEncoderDecodedInstructionToEncoderRequest(&insn, ops, insn.operand_count_visible, &form.req)))
        return 0;
    for (unsigned i = 0; i < insn.operand_count_visible; i++) {
        form.vary[i] = ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
        form.size[i] = ops[i].size;
        if (ops[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && form.vary[i]) {
            form.imm_size = insn.raw.imm[0].size;
            form.imm_signed = insn.raw.imm[0].is_signed;
        }
    }
    return add(forms, &form);
}

/* ModRM bytes worth trying: each reg with memory and with register 0; all of them where rm is part of the opcode. */
static int try_modrm(struct forms *forms, const ZydisDecoder *decoder, uint8_t *bytes, unsigned n, bool all)
{
    for (unsigned reg = 0; reg < 8; reg++) {
        bytes[n] = (uint8_t)(reg << 3);
        int r = try(forms, decoder, bytes, n + 12);
        for (unsigned rm = 0; !r && rm < (all ? 8 : 1); rm++) {
            bytes[n] = (uint8_t)(0xc0 | reg << 3 | rm);
            r = try(forms, decoder, bytes, n + 12);
        }
        if (r)
            return r;
    }
    return 0;
}

static int walk_legacy(struct forms *forms, const ZydisDecoder *decoder, bool rex)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3, 0xf0};
    static const uint8_t maps[][3] = {{0}, {1, 0x0f}, {2, 0x0f, 0x38}, {2, 0x0f, 0x3a}};

    for (unsigned map = 0; map < ARRAY_SIZE(maps); map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned variant = 0; variant < ARRAY_SIZE(prefixes) * 4; variant++) {
                uint8_t bytes[32] = {0}, n = 0;
                if ((variant & 2) && !rex)
                    continue;
                if (variant & 1)
                    bytes[n++] = 0x66; /* beside F2, F3 and LOCK too */
                if (prefixes[variant >> 2])
                    bytes[n++] = prefixes[variant >> 2];
                if (variant & 2)
                    bytes[n++] = 0x48;
                for (unsigned i = 0; i < maps[map][0]; i++)
                    bytes[n++] = maps[map][1 + i];
                bytes[n++] = (uint8_t)opcode;
                bool all = map == 0 ? opcode >= 0xd8 && opcode <= 0xdf
                                    : map == 1 && (opcode == 0x01 || opcode == 0xae || opcode == 0xc7);
                int r = try_modrm(forms, decoder, bytes, n, all);
                if (r)
                    return r;
            }
    return 0;
}

static int walk_vex(struct forms *forms, const ZydisDecoder *decoder)
{
    for (unsigned map = 1; map <= 3; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned variant = 0; variant < 32; variant++) {
                uint8_t bytes[32] = {0xc4, (uint8_t)(0xe0 | map)};
                uint8_t vvvv = variant & 16 ? 0x70 : 0x78; /* a register, or none (1111) */
                bytes[2] = (uint8_t)((variant & 1) << 7 | vvvv | (variant & 14) >> 1);
                bytes[3] = (uint8_t)opcode;
                int r = try_modrm(forms, decoder, bytes, 4, false);
                bytes[4] = 0x04; /* gathers want a vector index */
                bytes[5] = 0x10;
                if (!r && map == 2 && opcode >= 0x90 && opcode <= 0x93)
                    r = try(forms, decoder, bytes, 16);
                if (r)
                    return r;
            }
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct form *x = a, *y = b;
    return x->class != y->class ? (int)x->class - (int)y->class : (int)x->mnemonic - (int)y->mnemonic;
}

static int make_index(struct forms *forms)
{
    qsort(forms->form, forms->n, sizeof(*forms->form), compare);
    for (size_t begin = 0, end; begin < forms->n; begin = end) {
        struct form_class_index *index = &forms->class[forms->form[begin].class];
        for (end = begin; end < forms->n && forms->form[end].class == forms->form[begin].class; end++)
            ;
        index->first = calloc(end - begin + 1, sizeof(*index->first));
        if (!index->first)
            return -ENOMEM;
        for (size_t i = begin; i < end; i++)
            if (i == begin || forms->form[i].mnemonic != forms->form[i - 1].mnemonic)
                index->first[index->n++] = i;
        index->first[index->n] = end;
    }
    return 0;
}

int forms_open(struct forms *forms, bool compat)
{
    ZydisDecoder decoder;

    *forms = (struct forms){0};
    seq_decoder(&decoder, compat);
    int r = walk_legacy(forms, &decoder, !compat);
    if (!r)
        r = walk_vex(forms, &decoder);
    if (!r)
        r = make_index(forms);
    if (r)
        forms_close(forms);
    return r;
}

void forms_close(struct forms *forms)
{
    for (unsigned i = 0; i < FORM_N_CLASSES; i++)
        free(forms->class[i].first);
    free(forms->form);
    *forms = (struct forms){0};
}
