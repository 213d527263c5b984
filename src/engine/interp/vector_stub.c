/*
 * See vector.h. A stub is straight-line code:
 *
 *     load what it touches - the instruction - store what it wrote - return 0
 *
 * Vector registers keep their numbers. Of general registers only RAX, RCX, RDX, R8 and R9 are used, which a C function may clobber.
 * Instructions that depend on MXCSR run under the guest's, and the host's is back before the stub returns; those on x87 registers
 * stand between FXRSTOR and FXSAVE, so that a pending exception never meets a waiting instruction of the host.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <ucontext.h>

#include "engine/interp/vector.h"
#include "jit/arena.h"

#define ARENA_SIZE (2 * MIB)
#define TABLE_BITS 14
#define TABLE_SIZE (1u << TABLE_BITS)
#define TABLE_MAX  (TABLE_SIZE / 2) /* slots in use, so that a search is short and ends */
#define STUB_MAX   512

#define KEY_CODE_BYTES 7
#define KEY_GPR_SHIFT  56

struct vector_unit {
    struct jit_arena arena;
    const uint8_t *host_mxcsr; /* the default value, in the arena */
    const uint8_t *trap_exit, *trap_exit_x87;
    uint32_t generation;
    unsigned n_stubs;
    struct slot {
        uint64_t key;
        const uint8_t *code;
    } table[TABLE_SIZE];
};

/* The stub that runs and may raise SIGFPE on this thread: a signal handler has no argument of its own. */
static _Thread_local struct {
    const struct jit_arena *volatile arena;
    const uint8_t *exit;
} trapping;

/* ---- the normalised encoding ---- */

static bool is_gpr(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || op->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
    return class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64;
}

bool vector_vex_w_is_gpr_size(const ZydisDecodedInstruction *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
        return true;
    default:
        return false;
    }
}

static unsigned put_prefixes(uint8_t *code, const ZydisDecodedInstruction *insn, bool gpr_reg, bool gpr_rm, bool mem)
{
    bool long_mode = insn->machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
    unsigned n = 0;

    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        bool w = insn->raw.vex.W && (long_mode || !vector_vex_w_is_gpr_size(insn));
        uint8_t r = gpr_reg || insn->raw.vex.R, b = gpr_rm || mem || insn->raw.vex.B;
        uint8_t vvvv = insn->raw.vex.vvvv | (long_mode ? 0 : 8);
        code[n++] = 0xc4;
        code[n++] = (uint8_t)(r << 7 | 1 << 6 | b << 5 | (insn->opcode_map & 3));
        code[n++] = (uint8_t)(w << 7 | vvvv << 3 | insn->raw.vex.L << 2 | insn->raw.vex.pp);
        return n;
    }
    for (unsigned i = 0; i < insn->raw.prefix_count; i++)
        if (insn->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            code[n++] = insn->raw.prefixes[i].value;
    if (insn->attributes & ZYDIS_ATTRIB_HAS_REX) {
        uint8_t rex =
            (uint8_t)(insn->raw.rex.W << 3 | (!gpr_reg && insn->raw.rex.R) << 2 | (!gpr_rm && !mem && insn->raw.rex.B));
        if (rex)
            code[n++] = 0x40 | rex;
    }
    return n;
}

uint64_t vector_stub_key(const struct x86_insn *xi)
{
    const ZydisDecodedInstruction *insn = &xi->insn;
    const ZydisDecodedOperand *gpr = NULL;
    uint8_t code[16] = {0};
    bool mem = (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) && insn->raw.modrm.mod != 3;

    for (unsigned i = 0; i < insn->operand_count; i++)
        if (is_gpr(&xi->op[i]))
            gpr = &xi->op[i];
    bool gpr_reg = gpr && gpr->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
    bool gpr_rm = gpr && gpr->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    if (gpr && !gpr_reg && !gpr_rm)
        return 0;

    unsigned n = put_prefixes(code, insn, gpr_reg, gpr_rm, mem);
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        if (insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
            code[n++] = 0x0f;
        if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F38)
            code[n++] = 0x38;
        if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
            code[n++] = 0x3a;
    }
    code[n++] = insn->opcode;
    if (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        uint8_t reg = gpr_reg ? 0 : insn->raw.modrm.reg;
        code[n++] = mem ? (uint8_t)(reg << 3 | 6) : (uint8_t)(0xc0 | reg << 3 | (gpr_rm ? 0 : insn->raw.modrm.rm));
    }
    if (insn->raw.imm[0].size) {
        bool is4 = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && xi->op[3].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                   insn->operand_count > 3 && xi->op[3].encoding == ZYDIS_OPERAND_ENCODING_IS4;
        code[n++] =
            (uint8_t)insn->raw.imm[0].value.u & (is4 && insn->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 ? 0x7f : 0xff);
    }
    if (n > KEY_CODE_BYTES || insn->raw.imm[0].size > 8 || insn->raw.imm[1].size)
        return 0;
    return load_le64(code) | (gpr ? (uint64_t)ZydisRegisterGetId(gpr->reg.value) << KEY_GPR_SHIFT : 0);
}

/* ---- emitting ---- */

struct emit {
    uint8_t code[STUB_MAX];
    unsigned n;
};

static void put(struct emit *e, const void *bytes, unsigned n)
{
    memcpy(e->code + e->n, bytes, n);
    e->n += n;
}

#define PUT(e, ...) put(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct emit *e, uint32_t v)
{
    uint8_t b[4];
    store_le32(b, v);
    put(e, b, 4);
}

/* The ModRM byte and displacement of [RDI + off]. */
static void put_state(struct emit *e, unsigned reg, size_t off)
{
    PUT(e, (uint8_t)(0x80 | (reg & 7) << 3 | 7));
    put32(e, (uint32_t)off);
}

#define STATE(field) offsetof(struct interp, st.field)

enum { LOAD = 0x10, STORE = 0x11 }; /* opcodes of MOVUPS */

static void put_move_vector(struct emit *e, uint8_t opcode, unsigned reg, bool vex, bool wide)
{
    if (vex)
        PUT(e, 0xc5, (uint8_t)((reg < 8) << 7 | 0x78 | wide << 2), opcode);
    else if (reg >= 8)
        PUT(e, 0x44, 0x0f, opcode);
    else
        PUT(e, 0x0f, opcode);
    put_state(e, reg, STATE(ymm) + 32 * reg);
}

static void put_load_gpr(struct emit *e, unsigned reg, unsigned guest)
{
    PUT(e, 0x48, 0x8b);
    put_state(e, reg, INTERP_GPR(guest));
}

static void put_store_gpr(struct emit *e, unsigned reg, unsigned guest)
{
    PUT(e, 0x48, 0x89);
    put_state(e, reg, INTERP_GPR(guest));
}

/* The host's default MXCSR again: ldmxcsr [rip + x]. `at`: where the stub will run. */
static void put_host_mxcsr(struct emit *e, const struct vector_unit *unit, const uint8_t *at)
{
    PUT(e, 0x0f, 0xae, 0x15);
    put32(e, (uint32_t)(unit->host_mxcsr - (at + e->n + 4)));
}

static void put_guest_mxcsr(struct emit *e, bool load)
{
    PUT(e, 0x0f, 0xae);
    put_state(e, load ? 2 : 3, STATE(fx.mxcsr));
}

/* x87 and MXCSR: fxrstor64 or fxsave64. */
static void put_x87_state(struct emit *e, bool load)
{
    PUT(e, 0x48, 0x0f, 0xae);
    put_state(e, load, STATE(fx));
}

/* Status flags of the guest into EFLAGS, or back. */
static void put_load_flags(struct emit *e)
{
    PUT(e, 0x4c, 0x8b); /* mov r9, rflags */
    put_state(e, 1, STATE(rflags));
    PUT(e, 0x41, 0x81, 0xe1); /* and r9d, status */
    put32(e, X86_FLAGS_STATUS);
    PUT(e, 0x41, 0x51, 0x9d); /* push r9; popfq */
}

static void put_store_flags(struct emit *e)
{
    PUT(e, 0x9c, 0x41, 0x58, 0x41, 0x81, 0xe0); /* pushfq; pop r8; and r8d, status */
    put32(e, X86_FLAGS_STATUS);
    PUT(e, 0x4c, 0x8b); /* mov r9, rflags */
    put_state(e, 1, STATE(rflags));
    PUT(e, 0x49, 0x81, 0xe1); /* and r9, ~status */
    put32(e, ~X86_FLAGS_STATUS);
    PUT(e, 0x4d, 0x09, 0xc1, 0x4c, 0x89); /* or r9, r8; mov rflags, r9 */
    put_state(e, 1, STATE(rflags));
}

/* What an instruction touches, from its operands, hidden ones included. */
struct touched {
    uint16_t vec, vec_written; /* bit a register */
    bool gpr, gpr_written, flags_read, flags_written;
    bool rax, rdx, rcx_written; /* of PCMPxSTRx */
};

static void touch(struct touched *t, const ZydisDecodedOperand *op)
{
    bool writes = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    unsigned id = (unsigned)ZydisRegisterGetId(op->reg.value) & 15;

    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        t->vec |= (uint16_t)(1u << id);
        t->vec_written |= (uint16_t)(writes << id);
        break;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        if (is_gpr(op)) {
            t->gpr = true;
            t->gpr_written |= writes;
        } else {
            t->rax |= id == X86_RAX;
            t->rdx |= id == X86_RDX;
            t->rcx_written |= id == X86_RCX;
        }
        break;
    case ZYDIS_REGCLASS_FLAGS:
        t->flags_read |= !!(op->actions & ZYDIS_OPERAND_ACTION_MASK_READ);
        t->flags_written |= writes;
        break;
    default:
        break;
    }
}

/* Vector registers are loaded also where they are only written: scalar forms keep the rest of their destination. */
static void put_stub(struct emit *e, const struct vector_unit *unit, const struct insn *in, const struct x86_insn *xi,
                     const uint8_t *at)
{
    struct touched t = {0};
    unsigned flags = in->reg, guest = in->imm >> KEY_GPR_SHIFT & 15;
    bool x87 = flags & (VECTOR_X87 | VECTOR_MMX), vex = flags & VECTOR_AVX, wide = flags & VECTOR_WIDE;
    uint8_t code[8];

    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (xi->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            touch(&t, &xi->op[i]);

    if (x87) {
        put_x87_state(e, true);
    }
    for (unsigned r = 0; r < 16; r++)
        if (t.vec >> r & 1)
            put_move_vector(e, LOAD, r, vex, wide);
    if (t.gpr)
        put_load_gpr(e, X86_RAX, guest);
    if (t.rax)
        put_load_gpr(e, X86_RAX, X86_RAX);
    if (t.rdx)
        put_load_gpr(e, X86_RDX, X86_RDX);
    if (t.flags_read)
        put_load_flags(e);
    if (flags & VECTOR_MXCSR && !x87)
        put_guest_mxcsr(e, true);

    store_le64(code, in->imm);
    put(e, code, xi->insn.length);

    if (flags & VECTOR_MXCSR && !x87) {
        put_guest_mxcsr(e, false);
        put_host_mxcsr(e, unit, at);
    }
    if (t.flags_written)
        put_store_flags(e);
    if (t.gpr_written)
        put_store_gpr(e, X86_RAX, guest);
    if (t.rcx_written)
        put_store_gpr(e, X86_RCX, X86_RCX);
    for (unsigned r = 0; r < 16; r++)
        if (t.vec_written >> r & 1)
            put_move_vector(e, STORE, r, vex, vex); /* VEX clears the upper half */
    if (x87) {
        put_x87_state(e, false);
        PUT(e, 0xdb, 0xe3); /* fninit */
        put_host_mxcsr(e, unit, at);
    }
    if (wide)
        PUT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    PUT(e, 0x31, 0xc0, 0xc3);     /* xor eax, eax; ret */
}

/* ---- the cache ---- */

/* What does not belong to one instruction: the constant, and where a stub goes on after SIGFPE, with RDI as it was. */
static void build_common(struct vector_unit *unit)
{
    struct emit e = {.n = 0};
    uint8_t *p = jit_arena_alloc(&unit->arena, JIT_ARENA_ALIGN);

    store_le32(p, VECTOR_MXCSR_DEFAULT);
    unit->host_mxcsr = jit_arena_exec(&unit->arena, p);

    p = jit_arena_alloc(&unit->arena, 64);
    unit->trap_exit_x87 = jit_arena_exec(&unit->arena, p);
    put_x87_state(&e, false); /* between MMX and XMM: the turn to MMX state is not undone */
    PUT(&e, 0xdb, 0xe3);      /* fninit */
    unit->trap_exit = unit->trap_exit_x87 + e.n;
    put_guest_mxcsr(&e, false);
    put_host_mxcsr(&e, unit, unit->trap_exit_x87);
    PUT(&e, 0xb8, 1, 0, 0, 0, 0xc3); /* mov eax, 1; ret */
    memcpy(p, e.code, e.n);
}

static void flush(struct vector_unit *unit)
{
    memset(unit->table, 0, sizeof(unit->table));
    jit_arena_reset(&unit->arena);
    unit->generation++;
    unit->n_stubs = 0;
    build_common(unit);
}

static struct slot *find_slot(struct vector_unit *unit, uint64_t key)
{
    unsigned i = (unsigned)(key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - TABLE_BITS));
    while (unit->table[i].key && unit->table[i].key != key)
        i = (i + 1) % TABLE_SIZE;
    return &unit->table[i];
}

static const uint8_t *build(struct vector_unit *unit, const struct insn *in)
{
    struct emit e = {.n = 0};
    struct x86_insn xi;
    uint8_t code[8];

    store_le64(code, in->imm);
    if (x86_decode(&xi, 8, false, code, KEY_CODE_BYTES) != X86_DECODE_OK)
        return NULL;
    if (unit->n_stubs == TABLE_MAX || unit->arena.size - unit->arena.used < STUB_MAX)
        flush(unit);
    uint8_t *p = jit_arena_alloc(&unit->arena, STUB_MAX);
    const uint8_t *at = jit_arena_exec(&unit->arena, p);
    put_stub(&e, unit, in, &xi, at);
    memcpy(p, e.code, e.n);
    jit_arena_trim(&unit->arena, p, e.n);
    unit->n_stubs++;
    *find_slot(unit, in->imm) = (struct slot){in->imm, at};
    return at;
}

vector_stub_fn vector_stub(struct interp *c, const struct insn *in)
{
    struct vector_unit *unit = c->vector;

    if (UNLIKELY(!in->extra || (in->rm | (uint32_t)in->vvvv << 16) != unit->generation)) {
        const uint8_t *code = find_slot(unit, in->imm)->code;
        if (!code)
            code = build(unit, in);
        if (!code)
            interp_raise(c, X86_UD);
        struct insn *mine = (struct insn *)in; /* in this vCPU's own cache; const for the handlers' sake */
        mine->extra = code;
        mine->rm = (uint16_t)unit->generation;
        mine->vvvv = (uint16_t)(unit->generation >> 16);
    }
    return (vector_stub_fn)(uintptr_t)in->extra;
}

/* ---- unmasked SIMD exceptions ---- */

/* Set before any vCPU runs, so that a handler needs no more than to read it. */
static bool (*_Atomic trap_hook)(int sig, siginfo_t *info, void *context);

void vector_on_trap(bool (*hook)(int sig, siginfo_t *info, void *context))
{
    atomic_store(&trap_hook, hook);
}

/* Leads the faulting stub to its exit, MXCSR as the exception left it. A SIGFPE that is nobody's has its default effect. */
static void on_sigfpe(int sig, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    if (trapping.arena && jit_arena_holds(trapping.arena, (uintptr_t)regs[REG_RIP])) {
        regs[REG_RIP] = (greg_t)(uintptr_t)trapping.exit;
        return;
    }
    bool (*hook)(int, siginfo_t *, void *) = atomic_load(&trap_hook);
    if (hook && hook(sig, info, context))
        return;
    signal(sig, SIG_DFL);
    if (info->si_code <= 0)
        raise(sig); /* sent, not caused: it would not come again by itself */
}

bool vector_stub_trapped(struct interp *c, const struct insn *in, void *mem)
{
    const struct vector_unit *unit = c->vector;
    vector_stub_fn stub = vector_stub(c, in);

    trapping.exit = in->reg & VECTOR_MMX ? unit->trap_exit_x87 : unit->trap_exit;
    trapping.arena = &unit->arena;
    bool trapped = stub(c, mem);
    trapping.arena = NULL;
    return trapped;
}

int vector_open(struct vector_unit **unit, struct err *err)
{
    struct sigaction sa = {.sa_sigaction = on_sigfpe, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct vector_unit *u = calloc(1, sizeof(*u));

    if (!u)
        return err_set(err, -ENOMEM, "no memory for the vector unit");
    int ret = jit_arena_open(&u->arena, ARENA_SIZE, err);
    if (ret) {
        free(u);
        return ret;
    }
    build_common(u);
    sigfillset(&sa.sa_mask);
    sigaction(SIGFPE, &sa, NULL); /* fails only for signals that cannot be caught */
    *unit = u;
    return 0;
}

void vector_close(struct vector_unit *unit)
{
    if (!unit)
        return;
    jit_arena_close(&unit->arena);
    free(unit);
}
