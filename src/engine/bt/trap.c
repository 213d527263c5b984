/*
 * Exceptions of the host's CPU in generated code.
 *
 * Some are the guest's: an unmasked SIMD exception, a division that does not fit. Each host instruction that may raise one is in its
 * block's table with its slow path, and there the handler sends the thread: the interpreter runs the instruction again and
 * raises what it raises. Nothing has been changed by then but MXCSR's flags, which stay set in any case (SDM Vol. 1 11.5.2).
 *
 * Any other is a fault of the translator, or of the host's memory, and so is a jump of generated code to where no code is. Such a guest cannot
 * go on: generated code is left, and the run loop tells (bug.c). A fault in C is none of this file's, also under generated code: it
 * takes its usual course, with a core file that shows it.
 *
 * Threads: handlers run on the vCPU's thread, on its signal stack; they read what only that thread writes, and not while generated code
 * runs.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <ucontext.h>

#include "engine/interp/vector.h"

#define STACK_MOST  (8 * MIB) /* of C under run() */
#define CLEAN_FLAGS (X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_AC)

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
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

/* The instruction that raised it: INT3 and single steps are traps, and RIP is behind that of INT3. */
static uintptr_t instruction(const greg_t *regs)
{
    return (uintptr_t)regs[REG_RIP] - (regs[REG_TRAPNO] == X86_BP);
}

/* A fetch failed, and under the guest's stack pointer: generated code runs with that one, C with the host's. */
static bool is_wild_jump(const struct bt *bt, const greg_t *regs)
{
    bool fetch = regs[REG_TRAPNO] == X86_PF && (regs[REG_ERR] & X86_PF_I);
    return fetch && atomic_load(&bt->in_guest) && bt->host_rsp - (uint64_t)regs[REG_RSP] > STACK_MOST;
}

static void leave(struct bt *bt, int sig, const siginfo_t *info, greg_t *regs)
{
    bt->trap.sig = sig;
    bt->trap.pc = instruction(regs);
    bt->trap.addr = sig == SIGSEGV || sig == SIGBUS ? (uintptr_t)info->si_addr : 0;
    bt->trap.rflags = (uint64_t)regs[REG_EFL];
    regs[REG_EFL] &= ~(greg_t)CLEAN_FLAGS;
    regs[REG_RIP] = (greg_t)(uintptr_t)bt->thunks.trap;
}

/* false: not in generated code. */
static bool divert(int sig, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t pc = instruction(regs);
    struct bt *bt = signal_running();
    const uint8_t *slow;

    if (!bt || info->si_code <= 0 || (!jit_arena_holds(&bt->arena, pc) && !is_wild_jump(bt, regs)))
        return false;
    slow = sig == SIGFPE ? slow_path(bt, pc) : NULL;
    if (slow)
        regs[REG_RIP] = (greg_t)(uintptr_t)slow;
    else
        leave(bt, sig, info, regs);
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
    if (info->si_code <= 0 || sig == SIGTRAP)
        raise(sig); /* sent, not caused, or a trap: it would not come again by itself */
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

void trap_describe(const struct bt *bt, char *text, size_t room)
{
    static const struct {
        int sig;
        const char *name;
    } names[] = {
        {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"}, {SIGFPE, "SIGFPE"}, {SIGTRAP, "SIGTRAP"}};
    const char *name = "a signal", *where = jit_arena_holds(&bt->arena, bt->trap.pc) ? "in" : "after a jump out of";
    char addr[40] = "";

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (names[i].sig == bt->trap.sig)
            name = names[i].name;
    if (bt->trap.addr)
        snprintf(addr, sizeof(addr), ", fault address %#" PRIxPTR, bt->trap.addr);
    snprintf(text, room, "%s (%s) %s translated code, host RIP %#" PRIxPTR "%s", name, strsignal(bt->trap.sig), where,
             bt->trap.pc, addr);
}
