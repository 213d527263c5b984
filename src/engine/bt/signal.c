/*
 * Kicks. Generated code looks whether something is due only where it arrives through the jump cache; a loop of direct jumps never would. So a
 * kick is a signal to the vCPU's thread: its handler makes every direct jump out of the running block lead to its stub, which leaves to C
 * with the guest's state complete. That costs loops nothing, and a kick some microseconds.
 *
 * Handlers run on a stack of their own, since the stack pointer is the guest's, and disarm it while they run, since that might be any.
 *
 * Threads: the handler runs on the vCPU's thread, between two instructions of generated code or before it enters; C does not touch the
 * cache then.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#define KICK_SIGNAL SIGURG /* ignored by default, should one arrive late */
#define STACK_SIZE  (64 * KIB)

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

static _Thread_local struct {
    struct bt *volatile bt;
    void *stack;
} running;

static bool unhook_at(struct bt *bt, uintptr_t pc)
{
    struct bt_block *block = cache_at(bt, pc);

    if (block)
        cache_unhook(bt, block);
    return block != NULL;
}

static void on_kick(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    struct bt *bt = running.bt;

    if (!bt || !atomic_load(&bt->in_guest))
        return;
    if (unhook_at(bt, (uintptr_t)uc->uc_mcontext.gregs[REG_RIP]))
        return;
    /* About to enter, or in a light call that may come back; light_access() takes what leads back in T1. */
    if (jit_arena_holds(&bt->arena, (uintptr_t)uc->uc_mcontext.gregs[REG_RIP]))
        unhook_at(bt, (uintptr_t)uc->uc_mcontext.gregs[REG_R11]);
    unhook_at(bt, (uintptr_t)bt->target);
    unhook_at(bt, (uintptr_t)bt->arg0);
}

struct bt *signal_running(void)
{
    return running.bt;
}

int signal_open(struct err *err)
{
    struct sigaction action = {.sa_sigaction = on_kick, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

    sigfillset(&action.sa_mask);
    if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
        return err_set(err, -errno, "translator: no handler for its signal: %s", strerror(errno));
    return 0;
}

static int set_stack(void)
{
    stack_t stack = {.ss_flags = (int)SS_AUTODISARM, .ss_size = STACK_SIZE};

    running.stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (running.stack == MAP_FAILED)
        return -ENOMEM;
    stack.ss_sp = running.stack;
    return sigaltstack(&stack, NULL) < 0 ? -errno : 0;
}

int signal_thread(struct bt *bt)
{
    sigset_t set;

    running.bt = bt;
    if (running.stack)
        return 0;
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return set_stack();
}

void signal_thread_done(void)
{
    running.bt = NULL;
}

void signal_kick(struct bt *bt)
{
    if (atomic_load(&bt->in_guest))
        pthread_kill(bt->thread, KICK_SIGNAL);
}
