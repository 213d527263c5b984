/* See debugger.h. */
#include "engine/interp/debugger.h"

#include "engine/interp/code.h"

static bool slows(const struct interp *c, const struct engine_debug *want)
{
    bool breaks = c->hooks && c->hooks->breaks;

    return want && (want->step || (want->n_breakpoints && !breaks));
}

void debugger_set(struct interp *c, struct engine_debug *want)
{
    c->debugger.want = want;
    c->debugger.slows = slows(c, want);
    c->debugger.met = NULL;
    c->debugger.moved = false;
}

/* The first breakpoint of one of these kinds in [addr, addr + len), or NULL. */
static const struct engine_breakpoint *find(const struct interp *c, uint64_t addr, uint64_t len, unsigned kinds)
{
    const struct engine_debug *want = c->debugger.want;

    for (unsigned i = 0; want && i < want->n_breakpoints; i++) {
        const struct engine_breakpoint *b = &want->breakpoints[i];
        uint64_t size = b->kinds & ENGINE_BREAK_EXEC ? 1 : b->len;
        if ((b->kinds & kinds) && (b->addr - addr < len || addr - b->addr < size))
            return b;
    }
    return NULL;
}

bool debugger_breaks(struct interp *c)
{
    /* RF is set when an instruction is begun again: after its page fault, and between iterations of a repeated one. */
    if (c->debugger.want->step || (c->st.rflags & X86_FLAG_RF))
        return false;
    c->debugger.met = find(c, interp_linear_rip(c), 1, ENGINE_BREAK_EXEC);
    return c->debugger.met != NULL;
}

bool debugger_breaks_in(const struct interp *c, uint64_t lin, uint64_t len)
{
    return UNLIKELY(c->debugger.want != NULL) && find(c, lin, len, ENGINE_BREAK_EXEC);
}

uint64_t debugger_room(const struct interp *c, const struct code_block *block)
{
    uint64_t rip = interp_linear_rip(c), n = block->n;

    for (unsigned i = 0; i < c->debugger.want->n_breakpoints; i++) {
        const struct engine_breakpoint *b = &c->debugger.want->breakpoints[i];
        uint64_t off = b->addr - rip;
        if (!(b->kinds & ENGINE_BREAK_EXEC) || off == 0 || off >= block->len)
            continue;
        while (n > 1 && block->insn[n - 1].off >= off) /* those behind the breakpoint, and the one at it */
            n--;
    }
    return n;
}

bool debugger_watches(const struct interp *c, uint64_t lin, uint64_t len)
{
    return UNLIKELY(c->debugger.want != NULL) && find(c, lin, len, ENGINE_BREAK_READ | ENGINE_BREAK_WRITE);
}

void debugger_access(struct interp *c, uint64_t lin, unsigned len, bool write)
{
    if (c->debugger.met)
        return;
    c->debugger.met = find(c, lin, len, write ? ENGINE_BREAK_WRITE : ENGINE_BREAK_READ);
    if (!c->debugger.met)
        return;
    c->attention |= ATTN_RECHECK;
    if (c->cur)
        code_stop(c);
}

void debugger_report(struct interp *c)
{
    c->debugger.want->hit = c->debugger.met;
    c->debugger.met = NULL;
    c->debugger.moved = false;
}
