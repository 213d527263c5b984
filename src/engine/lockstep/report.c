/* The first difference for a person: what differs, how the step came about, and the code of the block on both sides. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "engine/lockstep/lockstep_impl.h"
#include "jit/disasm.h"
#include "x86/paging.h"

#define MOST_GUEST 64 /* instructions shown */
#define MOST_HOST  400

struct text {
    char *buf;
    size_t len, room;
};

static void PRINTF_LIKE(2, 3) put(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->len, t->room - t->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->len = t->len + (size_t)n < t->room ? t->len + (size_t)n : t->room - 1;
}

static unsigned code_size(const struct x86_state *st)
{
    return x86_code64(st) ? 8 : st->seg[X86_CS].attr & X86_SEG_DB ? 4 : 2;
}

static uint64_t linear_rip(const struct x86_state *st)
{
    return x86_code64(st) ? st->rip : (uint32_t)(st->seg[X86_CS].base + st->rip);
}

/* Code of the guest's from `lin`, as its page tables map it; the bytes read. */
static size_t read_code(const struct engine_vcpu *vcpu, const struct x86_state *st, uint64_t lin, uint8_t *buf,
                        size_t len)
{
    struct ram *ram = vcpu->engine->ram;
    const struct paging paging = {.ram = ram,
                                  .cr0 = st->cr0,
                                  .cr3 = st->cr3,
                                  .cr4 = st->cr4,
                                  .efer = st->efer,
                                  .pdpte = {st->pdpte[0], st->pdpte[1], st->pdpte[2], st->pdpte[3]},
                                  .phys_bits = 52};
    size_t done = 0;

    while (done < len) {
        struct paging_result to = {.gpa = lin + done};
        size_t part = RAM_PAGE_SIZE - ((lin + done) & (RAM_PAGE_SIZE - 1));
        if ((st->cr0 & X86_CR0_PG) && paging_walk(&paging, lin + done, PAGING_PEEK, &to) < 0)
            break;
        part = part < len - done ? part : len - done;
        if (ram_read(ram, to.gpa, buf + done, part) < 0)
            break;
        done += part;
    }
    return done;
}

static void put_code(struct text *t, const uint8_t *code, size_t len, uint64_t addr, unsigned size, uint64_t most)
{
    char line[DISASM_LINE];
    uint64_t n = 0;

    for (size_t at = 0; at < len && n < most; n++) {
        size_t step = disasm_one(code + at, len - at, addr + at, size, line);
        put(t, "  %16" PRIx64 "  %s\n", addr + at, line);
        at += step;
    }
}

static void put_guest_code(struct text *t, const struct engine_vcpu *vcpu)
{
    const struct x86_state *st = &vcpu->before;
    uint8_t code[MOST_GUEST * 15];
    uint64_t lin = linear_rip(st);
    size_t len = read_code(vcpu, st, lin, code, sizeof(code));

    put(t, "guest code there, %" PRIu64 " instructions of it or of where it leads:\n", vcpu->n);
    put_code(t, code, len, lin, code_size(st), vcpu->n + 1 < MOST_GUEST ? vcpu->n + 1 : MOST_GUEST);
}

static void put_host_code(struct text *t, const struct engine_vcpu *vcpu, unsigned which)
{
    const struct side *side = &vcpu->side[which];
    const uint8_t *code;

    if (!side->type->host_code)
        return;
    size_t len = side->type->host_code(side->inner, linear_rip(&vcpu->before), &code);
    if (!len)
        return;
    put(t, "host code of %s for it:\n", side->type->name);
    put_code(t, code, len, (uintptr_t)code, 8, MOST_HOST);
}

static void put_register(void *opaque, const char *name, const char *first, const char *second)
{
    put(opaque, "  %-16s leader   %s\n  %-16s follower %s\n", name, first, "", second);
}

static void put_history(struct text *t, const struct engine_vcpu *vcpu)
{
    unsigned n = vcpu->n_history < HISTORY ? vcpu->n_history : HISTORY;

    put(t, "the last steps began at");
    for (unsigned i = vcpu->n_history - n; i < vcpu->n_history; i++)
        put(t, " %" PRIx64, vcpu->history[i % HISTORY]);
    put(t, "\n");
}

void report_difference(struct engine_vcpu *vcpu, const char *what)
{
    struct lockstep *lockstep = vcpu->lockstep;
    const struct side *leader = &vcpu->side[LEADER], *follower = &vcpu->side[FOLLOWER];
    struct text t = {.buf = lockstep->report, .room = sizeof(lockstep->report)};
    char registers[4096];

    put(&t,
        "the leader, %s, and the follower, %s, differ behind instruction %" PRIu64 " in step, in the step that began "
        "at %" PRIx64 ": %s\n",
        leader->type->name, follower->type->name, lockstep->instructions, vcpu->before.rip, what);
    compare_each(&leader->st, &follower->st, put_register, &t);
    put_history(&t, vcpu);
    put_guest_code(&t, vcpu);
    x86_state_print(&vcpu->before, registers, sizeof(registers));
    put(&t, "registers before the step:\n%s\n", registers);
    put_host_code(&t, vcpu, LEADER);
    put_host_code(&t, vcpu, FOLLOWER);
}
