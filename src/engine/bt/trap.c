/*
 * Exceptions of the host's CPU in generated code.
 *
 * Some are the guest's: an unmasked SIMD exception, a division that does not fit. Each host instruction that may raise one is in its
 * block's table with its slow path, and there the handler sends the thread: the interpreter runs the instruction again and
 * raises what it raises. Nothing has been changed by then but MXCSR's flags, which stay set in any case (SDM Vol. 1 11.5.2).
 *
 * Any other is a fault of the translator, or of the host's memory. Such a guest cannot go on: generated code is left, and the engine fails.
 *
 * Threads: handlers run on the vCPU's thread, on its signal stack; they read what only that thread writes, and not while generated code
 * runs.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <ucontext.h>

#include "base/log.h"
#include "engine/interp/vector.h"

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL};
static struct sigaction others[ARRAY_SIZE(fatal_signals)]; /* handlers from before ours */

/* The slow path of the host instruction at pc, or NULL. */
static const uint8_t *slow_path(struct bt *bt, uintptr_t pc)
{
    const struct bt_block *block = cache_at(bt, pc);

    for (unsigned i = 0; block && i < block->n_traps; i++)
        if ((uintptr_t)block->code + block->traps[i].at == pc)
            return block->code + block->traps[i].stub;
    return NULL;
}

/* false: not in generated code. */
static bool divert(int sig, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t pc = (uintptr_t)regs[REG_RIP];
    struct bt *bt = signal_running();
    const uint8_t *to = NULL;

    if (!bt || info->si_code <= 0 || !jit_arena_holds(&bt->arena, pc))
        return false;
    if (sig == SIGFPE)
        to = slow_path(bt, pc);
    if (!to) {
        bt->trap.sig = sig;
        bt->trap.pc = pc;
        bt->trap.addr = (uintptr_t)info->si_addr;
        to = bt->thunks.trap;
    }
    regs[REG_RIP] = (greg_t)(uintptr_t)to;
    return true;
}

/* Elsewhere it is as if we were not there: the instruction faults again, under the handler from before. */
static void on_fatal(int sig, siginfo_t *info, void *context)
{
    if (divert(sig, info, context))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
        if (fatal_signals[i] == sig)
            sigaction(sig, &others[i], NULL);
    if (info->si_code <= 0)
        raise(sig); /* sent, not caused: it would not come again by itself */
}

int trap_open(struct err *err)
{
    struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigfillset(&action.sa_mask);
    vector_on_trap(divert);
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++) {
        struct sigaction before;
        if (sigaction(fatal_signals[i], &action, &before) < 0)
            return err_set(err, -errno, "translator: no handler for signal %d: %s", fatal_signals[i], strerror(errno));
        if (!(before.sa_flags & SA_SIGINFO) || before.sa_sigaction != on_fatal)
            others[i] = before;
    }
    return 0;
}

void trap_report(struct bt *bt)
{
    const struct bt_block *block = cache_at(bt, bt->trap.pc);

    log_error("translator: signal %d (%s) in generated code at %#" PRIxPTR ", address %#" PRIxPTR
              ", of the block at RIP %#" PRIx64,
              bt->trap.sig, strsignal(bt->trap.sig), bt->trap.pc, bt->trap.addr, block ? block->rip : 0);
}
