/* The reference engine as the registry sees it; and what its vCPUs share. */
#ifndef ENGINE_INTERP_INTERP_ENGINE_H
#define ENGINE_INTERP_INTERP_ENGINE_H

#include <pthread.h>

#include "engine/interp/bind.h"

extern const struct engine_type interp_engine;

struct engine {
    struct ram *ram;
    const struct engine_trace *trace; /* or NULL */
    struct bind_map map;
    pthread_mutex_t bus_lock;  /* LOCKed accesses that one host instruction cannot make: across pages, or to devices */
    pthread_mutex_t code_lock; /* one code_mark() at a time; guards vcpus */
    uint64_t code_gpa;         /* what the request of code_epoch is about */
    _Atomic uint64_t code_epoch;
    struct interp **vcpus; /* by index; NULL where not open */
    unsigned n_vcpus;
};

/* An engine that another one builds on embeds these in its own. */
int interp_engine_init(struct engine *engine, const struct engine_conf *conf, struct err *err) MUST_CHECK;
void interp_engine_fini(struct engine *engine);
int interp_vcpu_init(struct interp *c, struct engine *engine, const struct engine_vcpu_conf *conf,
                     struct err *err) MUST_CHECK; /* *c is zeroed */
void interp_vcpu_fini(struct interp *c);
void interp_get_state(const struct interp *c, struct x86_state *st);
void interp_set_state(struct interp *c, const struct x86_state *st);
void interp_debug(struct interp *c, struct engine_debug *debug); /* engine_type.debug; interp_attend() then stops */

/* run()'s limit, from here. */
void interp_limit(struct interp *c, uint64_t limit);

/* Instructions that may run before the next look at the limit, which is not reached. */
static inline uint64_t interp_left(const struct interp *c)
{
    return UNLIKELY(c->one_block) ? UINT64_MAX : c->stop_at - c->n_insn;
}

/* Between instructions, when something may be due: answers it. true: leave run() with c->exit. */
bool interp_attend(struct interp *c);

/* Tells whoever traces code of a stretch that has just been decoded or translated. */
static inline void interp_trace_code(const struct interp *c, const struct engine_code *code)
{
    const struct engine_trace *trace = c->engine->trace;
    if (UNLIKELY(trace != NULL) && trace->code)
        trace->code(trace->opaque, code);
}

/*
 * One instruction at c->st.rip, with all that ATTN_STEP asks for around it; or, where only a debugger asks for it, those before the next
 * breakpoint. May raise.
 */
void interp_step(struct interp *c);

/* A run of instructions from c->st.rip, at most `limit`, and back. May raise. */
void interp_block(struct interp *c, uint64_t limit);

/*
 * One instruction at c->st.rip, where ATTN_STEP asks for nothing. May raise. Returns the RIP behind it, and counts it: `counts` is by
 * ZydisMnemonic.
 */
uint64_t interp_one(struct interp *c, uint64_t *counts);

/* Where c->unwind lands: delivers what was raised. false: triple fault, with c->exit set. */
bool interp_unwound(struct interp *c);

/*
 * The bus lock. While it waits, the vCPU answers other vCPUs' requests. A fault raised while it is held releases it, so check what
 * can fault first, for the sake of atomicity.
 */
void interp_bus_lock(struct interp *c);
void interp_bus_unlock(struct interp *c);

#endif
