/*
 * What is said when KVM cannot go on with a guest: in one piece, what happened, the registers, and the bytes at RIP, which are mostly the cause.
 */
#include "engine/kvm/kvm.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "engine/listing.h"

#define TEXT_ROOM    (8 * KIB)
#define BYTES        16
#define INSTRUCTIONS 1

static void put_memory(struct listing *t, const struct engine_vcpu *v, const struct x86_state *st)
{
    uint8_t bytes[BYTES];
    uint64_t lin = listing_linear_rip(st);
    size_t n = listing_read(v->engine->ram, st, lin, bytes, sizeof(bytes));

    listing_put(t, "the guest's memory at %" PRIx64 "%s", lin, n ? ":" : " cannot be read");
    for (size_t i = 0; i < n; i++)
        listing_put(t, " %02x", bytes[i]);
    listing_put(t, "\n");
    if (n)
        listing_put_code(t, bytes, n, lin, listing_code_size(st), INSTRUCTIONS, 0);
}

void kvm_report(struct engine_vcpu *v, const char *fmt, ...)
{
    const struct engine_trace *trace = v->engine->trace;
    char text[TEXT_ROOM];
    struct listing t = {.buf = text, .room = sizeof(text)};
    struct x86_state st;
    char what[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    v->exit = ENGINE_FAIL;
    v->unfinished = false;
    kvm_state_get(v, &st);
    listing_put(&t, "vireo: CPU %u: KVM: %s\n", v->conf.index, what);
    listing_put_registers(&t, &st);
    put_memory(&t, v, &st);
    log_text(text);
    if (trace && trace->failure)
        trace->failure(trace->opaque, text);
}
