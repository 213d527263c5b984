/*
 * One CPU changes what another one runs. A writer brings out version after version of a function that returns its version; an executor
 * calls it all the time. `begun` is raised before a version is written, `published` when the protocol of the case says that nobody
 * can run an older one. So what the executor gets lies between `published` before its call and `begun` after it.
 */
#include "smc.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define RW          (PROT_READ | PROT_WRITE)
#define RX          (PROT_READ | PROT_EXEC)
#define RWX         (RW | PROT_EXEC)
#define ANONYMOUS   (MAP_PRIVATE | MAP_ANONYMOUS)
#define INTERRUPTED UINT64_MAX /* what a call returns that met a breakpoint, or no code */

struct cross {
    struct run *r;
    uint8_t *writable, *executable; /* two addresses of the same function, or one */
    atomic_uint begun, published;
    atomic_uint seen;   /* the version that the executor got last */
    atomic_ulong calls; /* that it made */
    atomic_bool done;
    struct run executor; /* its results, added to r's at the end */
    cpu_set_t cpus;      /* that the process may run on */
};

/* Threads of a case run on CPUs of their own, as far as two are allowed. */
static void on_cpu(const cpu_set_t *allowed, unsigned number)
{
    cpu_set_t one;

    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, allowed) && number-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof(one), &one);
            return;
        }
    }
}

/* In a loop that waits for the other thread, which may need this very CPU. */
static void wait_a_little(unsigned *spins)
{
    if (++*spins % 256)
        __builtin_ia32_pause();
    else
        sched_yield();
}

/* A breakpoint in the function, or no function where one was: its caller gets INTERRUPTED. The function does not touch its stack. */
static void leave_function(int signo, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    memcpy(&regs[REG_RIP], (void *)regs[REG_RSP], sizeof(regs[REG_RIP]));
    regs[REG_RSP] += 8;
    regs[REG_RAX] = -1;
}

/* Calls the function until the writer has finished. */
static void *execute(void *argument)
{
    struct cross *c = argument;

    on_cpu(&c->cpus, 1);
    while (!atomic_load(&c->done)) {
        unsigned first = atomic_load(&c->published);
        uint64_t got = smc_call(c->executable, 0);

        if (got == INTERRUPTED)
            continue;
        smc_expect_range(&c->executor, got, first, atomic_load(&c->begun));
        atomic_store(&c->seen, (unsigned)got);
        atomic_fetch_add(&c->calls, 1);
    }
    return NULL;
}

/* The same, but it calls each version once, when that is published, after a serializing instruction (SDM vol. 3, 9.1.3). */
static void *execute_published(void *argument)
{
    struct cross *c = argument;
    unsigned version = 0, spins = 0;

    on_cpu(&c->cpus, 1);
    while (!atomic_load(&c->done)) {
        if (atomic_load(&c->published) == version) {
            wait_a_little(&spins);
            continue;
        }
        version++;
        smc_serialize();
        smc_expect(&c->executor, smc_call(c->executable, 0), version);
        atomic_store(&c->seen, version);
    }
    return NULL;
}

/* Waits until the executor got a version, or, where that may be passed over, made two calls; false after so long that it never will. */
static bool wait_for(struct cross *c, unsigned version, bool exactly)
{
    unsigned long calls = atomic_load(&c->calls) + 2;
    struct timespec now;
    time_t limit = 0;

    for (unsigned spins = 0; exactly ? atomic_load(&c->seen) != version : atomic_load(&c->calls) < calls;
         wait_a_little(&spins)) {
        if (spins % 1024)
            continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!limit)
            limit = now.tv_sec + (c->r->stale ? 1 : 120);
        if (now.tv_sec > limit)
            return false;
    }
    return true;
}

/*
 * Runs a case: an executor on the other CPU, and here the writer, which brings out each version by `bring`. The executor gets each one
 * exactly, or the writer runs ahead of it and only now and then lets it call what was published.
 */
static void cross(struct cross *c, void *(*executor)(void *), void (*bring)(struct cross *c, unsigned version),
                  bool exactly)
{
    struct sigaction action = {.sa_sigaction = leave_function, .sa_flags = SA_SIGINFO}, segv, trap;
    unsigned versions = c->r->rounds / 4;
    pthread_t thread;

    if (sched_getaffinity(0, sizeof(c->cpus), &c->cpus))
        smc_die("sched_getaffinity");
    sigaction(SIGSEGV, &action, &segv);
    sigaction(SIGTRAP, &action, &trap);
    on_cpu(&c->cpus, 0);
    c->executor = *c->r;
    if (pthread_create(&thread, NULL, executor, c))
        smc_die("pthread_create");
    for (unsigned version = 1; version <= versions; version++) {
        atomic_store(&c->begun, version);
        bring(c, version);
        if ((exactly || version % 4 == 0 || version == versions) && !wait_for(c, version, exactly)) {
            smc_expect(c->r, atomic_load(&c->seen), version);
            break;
        }
    }
    atomic_store(&c->done, true);
    pthread_join(thread, NULL);
    c->r->checked += c->executor.checked;
    c->r->wrong += c->executor.wrong;
    if (c->executor.wrong)
        memcpy(c->r->first, c->executor.first, sizeof(c->r->first));
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGTRAP, &trap, NULL);
    sched_setaffinity(0, sizeof(c->cpus), &c->cpus);
}

/* A function of another length, somewhere else in its page, behind a start that jumps to it; nobody runs it meanwhile. */
static void bring_anew(struct cross *c, unsigned version)
{
    uint8_t code[5] = {0xe9};
    unsigned offset = 8 + smc_random(c->r) % 2048, nops = smc_random(c->r) % 32;
    int32_t displacement = (int32_t)offset - 5;

    memset(c->writable + offset, 0x90, nops);
    smc_put_return(c->writable + offset + nops, version);
    memcpy(code + 1, &displacement, sizeof(displacement));
    smc_change(c->r, c->writable, code, sizeof(code));
    atomic_store(&c->published, version);
}

/* Code handed over: written, announced, run by the other one after a serializing instruction. */
static void handover(struct run *r)
{
    struct cross c = {.r = r};

    c.writable = c.executable = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0);
    cross(&c, execute_published, bring_anew, true);
    munmap(c.writable, PAGE);
}

/* The same through two addresses of a page. */
static void handover_alias(struct run *r)
{
    int fd = smc_file(PAGE);
    struct cross c = {.r = r};

    c.writable = smc_map_pages(NULL, PAGE, RW, MAP_SHARED, fd, 0);
    c.executable = smc_map_pages(NULL, PAGE, RX, MAP_SHARED, fd, 0);
    cross(&c, execute_published, bring_anew, true);
    munmap(c.writable, PAGE);
    munmap(c.executable, PAGE);
    close(fd);
}

/* The immediate of "mov eax, imm32", aligned, by one store. */
static void bring_immediate(struct cross *c, unsigned version)
{
    if (!smc_leave_out(c->r))
        atomic_store_explicit((_Atomic uint32_t *)(void *)(c->writable + 4), version, memory_order_release);
}

/*
 * Aligned stores of a whole field while the other CPU runs it: old or new, nothing between, and new before long. CPUs in use do so, and
 * JITs rely on it (AMD64 APM vol. 2, 7.6.1, "asynchronous modification").
 */
static void immediate(struct run *r)
{
    struct cross c = {.r = r};

    c.writable = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0);
    c.executable = c.writable + 3;
    smc_put_return(c.executable, 0);
    cross(&c, execute, bring_immediate, true);
    munmap(c.writable, PAGE);
}

/* A jump to another copy of the function, by a store of 8 aligned bytes. */
static void bring_branch(struct cross *c, unsigned version)
{
    unsigned offset = 64 + version % 61 * 64; /* one copy is not written while it might still run */
    uint64_t code = 0xe9 | (uint64_t)(offset - 5) << 8;

    smc_put_return(c->writable + offset, version);
    if (!smc_leave_out(c->r))
        atomic_store_explicit((_Atomic uint64_t *)(void *)c->writable, code, memory_order_release);
}

/* The same for the target of a jump. */
static void branch(struct run *r)
{
    struct cross c = {.r = r};

    c.writable = c.executable = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0);
    smc_put_return(c.writable + 64, 0);
    memcpy(c.writable, (uint8_t[]){0xe9, 59, 0, 0, 0}, 5);
    cross(&c, execute, bring_branch, true);
    munmap(c.writable, PAGE);
}

static long membarrier(int command)
{
    return syscall(SYS_membarrier, command, 0, 0);
}

static void synchronize_cores(void)
{
    if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE))
        smc_die("membarrier");
}

/* INT3 over the first byte, then the rest, then the first byte, and all CPUs serialized in between. */
static void bring_breakpoint(struct cross *c, unsigned version)
{
    uint8_t code[RETURN_SIZE];

    smc_put_return(code, version);
    atomic_store((_Atomic uint8_t *)c->writable, 0xcc);
    synchronize_cores();
    smc_change(c->r, c->writable + 1, code + 1, sizeof(code) - 1);
    synchronize_cores();
    atomic_store((_Atomic uint8_t *)c->writable, code[0]);
    synchronize_cores();
    atomic_store(&c->published, version);
}

/* Linux's own way to change text (text_poke_bp), here across a cache line. */
static void breakpoint(struct run *r)
{
    struct cross c = {.r = r};

    if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)) {
        r->skip = "no membarrier(SYNC_CORE)";
        return;
    }
    c.writable = c.executable = (uint8_t *)smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0) + 61;
    smc_put_return(c.writable, 0);
    cross(&c, execute, bring_breakpoint, false);
    munmap(c.writable - 61, PAGE);
}

/* Takes the code away, writes, and gives it back. */
static void bring_protected(struct cross *c, unsigned version)
{
    uint8_t code[RETURN_SIZE];

    smc_put_return(code, version);
    if (mprotect(c->writable, PAGE, RW))
        smc_die("mprotect");
    smc_change(c->r, c->writable, code, sizeof(code));
    if (mprotect(c->writable, PAGE, RX))
        smc_die("mprotect");
    atomic_store(&c->published, version);
}

/* Writable or executable: the executor faults while its code is written. */
static void protection(struct run *r)
{
    struct cross c = {.r = r};

    c.writable = c.executable = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0);
    smc_put_return(c.writable, 0);
    cross(&c, execute, bring_protected, false);
    munmap(c.writable, PAGE);
}

/* Moves another page to the code's address; the one there goes. */
static void bring_replaced(struct cross *c, unsigned version)
{
    uint8_t *page = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0);

    smc_put_return(page, version);
    if (smc_leave_out(c->r))
        munmap(page, PAGE);
    else if (mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, c->executable) == MAP_FAILED)
        smc_die("mremap");
    atomic_store(&c->published, version);
}

/* Code is unmapped under the executor and other code mapped: no stale translation of its address. */
static void replaced(struct run *r)
{
    struct cross c = {.r = r};

    c.writable = c.executable = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0);
    smc_put_return(c.writable, 0);
    cross(&c, execute, bring_replaced, false);
    munmap(c.executable, PAGE);
}

const struct smc_case smc_cross[] = {
    {"handover", handover},     {"handover_alias", handover_alias}, {"immediate", immediate}, {"branch", branch},
    {"breakpoint", breakpoint}, {"protection", protection},         {"replaced", replaced},   {NULL, NULL},
};
