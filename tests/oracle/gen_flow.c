/* Transfers of control: jumps forward, bounded loops, subroutines, and code that changes an instruction of another group. */
#include "base/util.h"
#include "gen_int.h"

/* Makes the last instruction's field at `off` (from its end when negative) refer to a group. */
static bool fix_last(struct gen *g, enum seq_fix fix, int off, unsigned size, unsigned target)
{
    struct seq_insn *si = &g->seq->insn[g->seq->n - 1];

    si->fix = (uint8_t)fix;
    si->fix_off = (uint8_t)(off < 0 ? si->len + off : off);
    si->fix_size = (uint8_t)size;
    si->target = target;
    return true;
}

static bool emit_fixed(struct gen *g, const uint8_t *b, unsigned len, enum seq_fix fix, unsigned off, unsigned size,
                       unsigned target)
{
    return gen_bytes(g, b, len) && fix_last(g, fix, (int)off, size, target);
}

/* push label; ret - also with an immediate */
static bool jump_by_ret(struct gen *g, unsigned to)
{
    const uint8_t push[] = {0x68, 0, 0, 0, 0}, ret[] = {0xc3},
                  ret_imm[] = {0xc2, (uint8_t)(8 * rng_below(&g->rng, 3)), 0};

    if (!emit_fixed(g, push, sizeof(push), SEQ_FIX_LABEL_ABS, 1, 4, to))
        return false;
    return rng_percent(&g->rng, 50) ? gen_bytes(g, ret, sizeof(ret)) : gen_bytes(g, ret_imm, sizeof(ret_imm));
}

/* jmp or call through a register or memory */
static bool jump_indirect(struct gen *g, unsigned to)
{
    unsigned kind = rng_percent(&g->rng, 50) ? 4 : 2; /* ModRM.reg */

    if (rng_percent(&g->rng, 50)) {
        unsigned reg = rng_below(&g->rng, g->n_regs);
        if (reg == X86_RSP)
            reg = X86_RAX;
        const uint8_t jump[] = {(uint8_t)(0x40 | reg >> 3), 0xff, (uint8_t)(0xc0 | kind << 3 | (reg & 7))};
        unsigned width = g->compat ? 4 : 8;
        return gen_mov(g, reg, 0) && fix_last(g, SEQ_FIX_LABEL_ABS, -(int)width, width, to) &&
               gen_bytes(g, jump + g->compat, 3 - g->compat);
    }
    uint32_t slot = SEQ_DATA + rng_below(&g->rng, SEQ_DATA_SIZE - 8);
    if (g->compat ? !gen_store32(g, slot, 0) : !gen_store64(g, slot, 0))
        return false;
    return fix_last(g, SEQ_FIX_LABEL_ABS, -4, 4, to) && gen_absolute(g, "\xff", 1, kind, slot, NULL, 0);
}

/* jcc, jrcxz and loops read flags that may be undefined here */
static bool jump_conditional(struct gen *g, unsigned to)
{
    uint8_t cc = (uint8_t)rng_below(&g->rng, 16);
    uint8_t b[6] = {0x0f, (uint8_t)(0x80 | cc)};

    if (!gen_define_flags(g))
        return false;
    switch (rng_below(&g->rng, 4)) {
    case 0: {
        uint8_t loop[3] = {0x67, (uint8_t)(0xe0 + rng_below(&g->rng, 4))};
        unsigned skip = rng_below(&g->rng, 2); /* with the 67 prefix: ECX */
        g->pointers &= (uint16_t) ~(1u << X86_RCX);
        if (rng_percent(&g->rng, 50) && !gen_mov(g, X86_RCX, rng_below(&g->rng, 3) | rng_next(&g->rng) << 32))
            return false;
        return emit_fixed(g, loop + skip, 3 - skip, SEQ_FIX_LABEL_REL, 2 - skip, 1, to);
    }
    case 1:
        b[0] = (uint8_t)(0x70 | cc);
        return emit_fixed(g, b, 2, SEQ_FIX_LABEL_REL, 1, 1, to);
    default:
        return emit_fixed(g, b, 6, SEQ_FIX_LABEL_REL, 2, 4, to);
    }
}

/* To that group, in one of the ways. */
static bool jump_always(struct gen *g, unsigned to)
{
    const uint8_t jmp32[] = {0xe9, 0, 0, 0, 0};

    switch (rng_below(&g->rng, 4)) {
    case 0:
        return jump_by_ret(g, to);
    case 1:
        return jump_indirect(g, to);
    default:
        return emit_fixed(g, jmp32, sizeof(jmp32), SEQ_FIX_LABEL_REL, 1, 4, to);
    }
}

/* A transfer of control to one of the next groups. */
static bool jump_forward(struct gen *g)
{
    unsigned to = g->group + 1 + rng_below(&g->rng, 3);
    const uint8_t jmp8[] = {0xeb, 0}, jmp32[] = {0xe9, 0, 0, 0, 0}, call[] = {0xe8, 0, 0, 0, 0};

    switch (rng_below(&g->rng, 10)) {
    case 0:
        return emit_fixed(g, jmp8, sizeof(jmp8), SEQ_FIX_LABEL_REL, 1, 1, to);
    case 1:
        return emit_fixed(g, jmp32, sizeof(jmp32), SEQ_FIX_LABEL_REL, 1, 4, to);
    case 2:
        return emit_fixed(g, call, sizeof(call), SEQ_FIX_LABEL_REL, 1, 4, to);
    case 3:
        return jump_by_ret(g, to);
    case 4:
        return jump_indirect(g, to);
    default:
        return jump_conditional(g, to);
    }
}

/* ---- what spans groups ---- */

/* Counts down, and goes back to the first group while it is above zero. The count is in memory from the start. */
static bool close_loop(struct gen *g, const struct gen_span *span)
{
    const uint8_t jg[] = {0x0f, 0x8f, 0, 0, 0, 0}, jle[] = {0x0f, 0x8e, 0, 0, 0, 0}, one = 1;
    uint32_t undef[SEQ_MAX_INSNS + 1], slot = SEQ_VAR(span->var);
    bool ok = rng_percent(&g->rng, 50) ? gen_absolute(g, "\x48\xff", 2, 1, slot, NULL, 0) /* dec: CF stays */
                                       : gen_absolute(g, "\x48\x83", 2, 5, slot, &one, 1);
    if (!ok)
        return false;
    if (rng_percent(&g->rng, 70))
        ok = emit_fixed(g, jg, sizeof(jg), SEQ_FIX_LABEL_REL, 2, 4, span->first);
    else
        ok = emit_fixed(g, jle, sizeof(jle), SEQ_FIX_LABEL_REL, 2, 4, g->group + 1) && jump_always(g, span->first);
    return ok && seq_undefined(g->seq, undef);
}

/*
 * mov rsp, [saved]; ret - so that it returns whatever was pushed and popped meanwhile. Before that it counts down, like a loop: somebody
 * may have changed the return address.
 */
static bool close_sub(struct gen *g, const struct gen_span *span)
{
    const uint8_t jle[] = {0x0f, 0x8e, 0, 0, 0, 0}, ret = 0xc3;
    uint32_t undef[SEQ_MAX_INSNS + 1];

    if (!gen_absolute(g, "\x48\xff", 2, 1, SEQ_VAR(span->var + 1), NULL, 0) ||
        !emit_fixed(g, jle, sizeof(jle), SEQ_FIX_LABEL_REL, 2, 4, g->group + 1) ||
        !gen_absolute(g, "\x48\x8b", 2, X86_RSP, SEQ_VAR(span->var), NULL, 0) || !gen_bytes(g, &ret, 1))
        return false;
    return fix_last(g, SEQ_FIX_FLOW, 0, 0, span->first) && seq_undefined(g->seq, undef);
}

/* Called once or twice, then jumped over: this group calls, the next one begins the subroutine. */
static bool open_sub(struct gen *g, unsigned var, unsigned last)
{
    const uint8_t call[] = {0xe8, 0, 0, 0, 0}, jmp[] = {0xe9, 0, 0, 0, 0};
    unsigned to = g->group + 1;

    for (unsigned n = 1 + rng_below(&g->rng, 2); n; n--)
        if (!emit_fixed(g, call, sizeof(call), SEQ_FIX_LABEL_REL, 1, 4, to))
            return false;
    if (!emit_fixed(g, jmp, sizeof(jmp), SEQ_FIX_LABEL_REL, 1, 4, last + 1))
        return false;
    g->group++;
    return gen_absolute(g, "\x48\x89", 2, X86_RSP, SEQ_VAR(var), NULL, 0);
}

bool gen_span_close(struct gen *g)
{
    if (!g->n_spans || g->span[g->n_spans - 1].last != g->group)
        return false;
    const struct gen_span *span = &g->span[--g->n_spans];
    unsigned n = g->seq->n;
    if (!(span->sub ? close_sub(g, span) : close_loop(g, span)))
        g->seq->n = n;
    return true;
}

void gen_span_open(struct gen *g)
{
    unsigned last = g->group + 2 + rng_below(&g->rng, 6), n = g->seq->n;
    bool sub = rng_percent(&g->rng, 40);

    if (g->n_spans == ARRAY_SIZE(g->span) || g->n_vars + 2 > SEQ_N_VARS)
        return;
    if (g->n_spans && last >= g->span[g->n_spans - 1].last)
        return;
    unsigned group = g->group, var = g->n_vars;
    g->n_vars += 2;
    if (sub && !open_sub(g, var, last)) {
        g->seq->n = n;
        g->group = group;
        return;
    }
    g->span[g->n_spans++] = (struct gen_span){.sub = sub, .first = g->group, .last = last, .var = var};
    g->pointers = 0; /* the second time round they may point elsewhere */
}

/* mov r32, imm32 - the number is what others change */
static bool patchable(struct gen *g)
{
    unsigned reg = rng_below(&g->rng, 8);
    uint8_t mov[5] = {(uint8_t)(0xb8 + (reg == X86_RSP ? X86_RBP : reg))};

    store_le32(mov + 1, (uint32_t)rng_next(&g->rng));
    g->pointers &= (uint16_t) ~(1u << (mov[0] & 7));
    if (!gen_bytes(g, mov, sizeof(mov)))
        return false;
    g->seq->insn[g->seq->n - 1].patchable = true;
    return true;
}

/* Stores to it: four bytes, one of them, or read, changed and written. */
static bool patch(struct gen *g, unsigned to)
{
    uint32_t imm = (uint32_t)rng_next(&g->rng);
    unsigned n = 4;
    bool ok;

    switch (rng_below(&g->rng, 3)) {
    case 0:
        n = 1;
        ok = gen_absolute(g, "\xc6", 1, 0, 0, &imm, n);
        break;
    case 1: /* add */
        ok = gen_absolute(g, "\x81", 1, 0, 0, &imm, n);
        break;
    default:
        ok = gen_absolute(g, "\xc7", 1, 0, 0, &imm, n);
        break;
    }
    return ok && fix_last(g, SEQ_FIX_PATCH, -(int)(4 + n), 4, to);
}

bool gen_patch(struct gen *g)
{
    unsigned to = g->group + 1 + rng_below(&g->rng, 4);

    if (g->patched >= 0 && rng_percent(&g->rng, 50)) /* again, or one behind, which a loop will meet */
        to = (unsigned)g->patched;
    g->patched = (int)to;
    return patch(g, to);
}

bool gen_group_begin(struct gen *g)
{
    return (int)g->group != g->patched || patchable(g);
}

bool gen_jump(struct gen *g)
{
    unsigned n = g->seq->n;

    if (jump_forward(g))
        return true;
    g->seq->n = n;
    return false;
}
