/* The first difference for a person: what differs, how the step came about, and the code of the block on both sides. */
#include <inttypes.h>

#include "engine/listing.h"
#include "engine/lockstep/lockstep_impl.h"

#define MOST_GUEST 64 /* instructions shown */
#define MOST_HOST  400

static void put_guest_code(struct listing *t, const struct engine_vcpu *vcpu)
{
    const struct x86_state *st = &vcpu->before;
    uint8_t code[MOST_GUEST * 15];
    uint64_t lin = listing_linear_rip(st);
    size_t len = listing_read(vcpu->engine->ram, st, lin, code, sizeof(code));

    listing_put(t, "guest code there, %" PRIu64 " instructions of it or of where it leads:\n", vcpu->n);
    listing_put_code(t, code, len, lin, listing_code_size(st), vcpu->n + 1 < MOST_GUEST ? vcpu->n + 1 : MOST_GUEST, 0);
}

static void put_host_code(struct listing *t, const struct engine_vcpu *vcpu, unsigned which)
{
    const struct side *side = &vcpu->side[which];
    const uint8_t *code;

    if (!side->type->host_code)
        return;
    size_t len = side->type->host_code(side->inner, listing_linear_rip(&vcpu->before), &code);
    if (!len)
        return;
    listing_put(t, "host code of %s for it:\n", side->type->name);
    listing_put_code(t, code, len, (uintptr_t)code, 8, MOST_HOST, 0);
}

static void put_register(void *opaque, const char *name, const char *first, const char *second)
{
    listing_put(opaque, "  %-16s leader   %s\n  %-16s follower %s\n", name, first, "", second);
}

static void put_history(struct listing *t, const struct engine_vcpu *vcpu)
{
    unsigned n = vcpu->n_history < HISTORY ? vcpu->n_history : HISTORY;

    listing_put(t, "the last steps began at");
    for (unsigned i = vcpu->n_history - n; i < vcpu->n_history; i++)
        listing_put(t, " %" PRIx64, vcpu->history[i % HISTORY]);
    listing_put(t, "\n");
}

void report_difference(struct engine_vcpu *vcpu, const char *what)
{
    struct lockstep *lockstep = vcpu->lockstep;
    const struct side *leader = &vcpu->side[LEADER], *follower = &vcpu->side[FOLLOWER];
    struct listing t = {.buf = lockstep->report, .room = sizeof(lockstep->report)};

    listing_put(&t,
                "the leader, %s, and the follower, %s, differ behind instruction %" PRIu64
                " in step, in the step that began "
                "at %" PRIx64 ": %s\n",
                leader->type->name, follower->type->name, lockstep->instructions, vcpu->before.rip, what);
    compare_each(&leader->st, &follower->st, put_register, &t);
    put_history(&t, vcpu);
    put_guest_code(&t, vcpu);
    listing_put(&t, "registers before the step:\n");
    listing_put_registers(&t, &vcpu->before);
    put_host_code(&t, vcpu, LEADER);
    put_host_code(&t, vcpu, FOLLOWER);
}
