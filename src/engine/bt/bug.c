/*
 * The translator is found to be wrong: by an exception of the host's CPU in its code (trap.c), or by itself. The guest cannot go on, since what it
 * would see is not what a CPU does. So the engine fails, and says all that whoever is to mend it will ask for.
 *
 * Threads: the vCPU's own, in C: never inside a signal handler.
 */
#include "engine/bt/bt.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "engine/listing.h"

#define TEXT_ROOM   (512 * KIB) /* more than the largest block's code takes */
#define MOST_INSNS  8192
#define GUEST_BYTES 32 /* of memory shown at RIP */
#define HOST_BYTES  64 /* of code shown where it is no block's */

static void put_bytes(struct listing *t, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        listing_put(t, " %02x", bytes[i]);
    listing_put(t, "\n");
}

/* The guest's memory at RIP as it is now, which need not be what the block was made from; the fault may be that it is gone. */
static void put_memory(struct listing *t, const struct bt *bt, const struct bt_block *block)
{
    uint8_t bytes[GUEST_BYTES];
    size_t left = block ? RAM_PAGE_SIZE - (block->gpa & (RAM_PAGE_SIZE - 1)) : 0, n;
    uint64_t lin = block ? block->rip : listing_linear_rip(&bt->c.st);

    if (block)
        n = ram_peek(bt->c.conf.ram, block->gpa, bytes, left < sizeof(bytes) ? left : sizeof(bytes));
    else
        n = listing_read(bt->c.conf.ram, &bt->c.st, lin, bytes, sizeof(bytes));
    listing_put(t, "the guest's memory at %" PRIx64 "%s", lin, n ? ":" : " cannot be read");
    put_bytes(t, bytes, n);
}

static void put_block(struct listing *t, const struct bt_block *block, uintptr_t pc)
{
    size_t len = (size_t)(block->code_end - block->code);

    listing_put(
        t, "the guest's code in the block, from RIP %" PRIx64 ", physical %" PRIx64 ", mode %#x, instructions %u:\n",
        block->rip, block->gpa, block->mode, block->n);
    listing_put_code(t, block->source, block->source_len, block->rip, block->mode & BT_MODE_64 ? 8 : 4, MOST_INSNS, 0);
    listing_put(t, "the host's code for it, %zu bytes%s:\n", len, pc ? ", with => where it stopped" : "");
    listing_put_code(t, block->code, len, (uintptr_t)block->code, 8, MOST_INSNS, pc);
}

static void put_code(struct listing *t, struct bt *bt, uintptr_t pc)
{
    const struct bt_block *block = cache_at(bt, pc);
    const char *thunk = thunk_name(bt, pc);
    size_t left = bt->arena.size - (pc - (uintptr_t)bt->arena.exec);

    if (block) {
        put_block(t, block, pc);
    } else if (jit_arena_holds(&bt->arena, pc)) {
        listing_put(t, "the host's code there, of %s:\n", thunk ? thunk : "no block");
        listing_put_code(t, (const uint8_t *)pc, left < HOST_BYTES ? left : HOST_BYTES, pc, 8, MOST_INSNS, pc);
    } else {
        listing_put(t, "the host address is outside translated code\n");
    }
}

static void put_trap(struct listing *t, struct bt *bt)
{
    const struct bt_block *block = cache_at(bt, bt->trap.pc);

    if (block)
        bt->c.st.rip = block->rip;
    listing_put(t, "the guest's registers, %s:\n",
                block ? "RIP where its block begins" : "RIP where it was known last");
    listing_put_registers(t, &bt->c.st);
    listing_put(t, "the host's r10 %016" PRIx64 "  r11 %016" PRIx64 "  rflags %016" PRIx64 "\n", bt->arg0, bt->arg1,
                bt->trap.rflags);
    put_memory(t, bt, block);
    put_code(t, bt, bt->trap.pc);
}

static void put_state(struct listing *t, struct bt *bt, const struct bt_block *block)
{
    listing_put(t, "the guest's registers:\n");
    listing_put_registers(t, &bt->c.st);
    put_memory(t, bt, block);
    if (block)
        put_block(t, block, 0);
}

static _Noreturn void fail(struct bt *bt)
{
    bt->failed = true;
    bt->c.exit = ENGINE_FAIL;
    longjmp(bt->c.unwind, 1);
}

static void put_end(struct listing *t, int sig)
{
    if (sig == SIGBUS)
        listing_put(t, "SIGBUS can also mean that the host has run out of memory, or that its memory is bad.\n");
    listing_put(
        t,
        "This is a bug in vireo, not in the guest. Please report it where you have vireo from: all lines from the one "
        "that begins\nwith 'vireo:', what `vireo --version` prints, and the command line.\n");
}

/* Room for the report, or NULL; then `what` has been logged. */
static bool begin(struct listing *t, const struct bt *bt, const char *what)
{
    *t = (struct listing){.buf = malloc(TEXT_ROOM), .room = TEXT_ROOM};
    if (!t->buf) {
        log_error("CPU %u: internal error of the translator: %s", bt->c.conf.index, what);
        return false;
    }
    listing_put(t, "vireo: CPU %u: internal error of the translator: %s\n", bt->c.conf.index, what);
    return true;
}

static void end(struct listing *t, const struct bt *bt, int sig)
{
    const struct engine_trace *trace = bt->c.engine->trace;

    put_end(t, sig);
    log_text(t->buf);
    if (trace && trace->failure)
        trace->failure(trace->opaque, t->buf);
    free(t->buf);
}

void bug_trapped(struct bt *bt)
{
    char what[256];
    struct listing t;

    trap_describe(bt, what, sizeof(what));
    if (begin(&t, bt, what)) {
        put_trap(&t, bt);
        end(&t, bt, bt->trap.sig);
    }
    fail(bt);
}

void bug_found(struct bt *bt, const struct bt_block *block, const char *fmt, ...)
{
    char what[256];
    struct listing t;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    if (begin(&t, bt, what)) {
        put_state(&t, bt, block);
        end(&t, bt, 0);
    }
    fail(bt);
}
