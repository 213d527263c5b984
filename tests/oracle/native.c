#include "native.h"

#include <asm/hwcap2.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/util.h"
#include "native_int.h"

/* Linux's selectors for programs. */
#define USER_CS32 0x23
#define USER_DS   0x2b
#define USER_CS   0x33

/* A batch takes some milliseconds. */
#define PATIENCE_MS 5000

static void *map_fixed(uint64_t addr, size_t len, int prot)
{
    return mmap((void *)(uintptr_t)addr, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE,
                -1, 0);
}

/* ---- the child ---- */

static void save_gpr(uint64_t gpr[X86_N_GPR], const greg_t *gregs)
{
    static const int order[X86_N_GPR] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                         REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

    for (unsigned i = 0; i < X86_N_GPR; i++)
        gpr[i] = (uint64_t)gregs[order[i]];
}

/* The state at the fault, from the signal's frame (the kernel wrote an XSAVE area there), into the job. */
static void save_state(struct seq_state *out, const ucontext_t *uc, const siginfo_t *info)
{
    const greg_t *gregs = uc->uc_mcontext.gregs;
    const uint8_t *fx = (const uint8_t *)uc->uc_mcontext.fpregs;

    save_gpr(out->gpr, gregs);
    out->rip = (uint64_t)gregs[REG_RIP];
    out->rflags = (uint64_t)gregs[REG_EFL];
    out->vector = (uint32_t)gregs[REG_TRAPNO];
    out->error = (uint32_t)gregs[REG_ERR];
    out->cr2 = out->vector == X86_PF ? (uint64_t)gregs[REG_CR2] : 0;
    seq_from_xsave(out, fx);
}

/* Where the job in hand lies is told by the control page: the handler has no other way to know. */
#define CURRENT_RUN (*(struct seq_run **)(uintptr_t)(NATIVE_CTL + 0x100))

/* Whether it is the trap of a single step behind which the sequence goes on; if so all is made ready for that. */
static bool is_step(struct seq_run *run, ucontext_t *uc, const siginfo_t *info)
{
    struct seq_result *out = &run->out;
    greg_t *gregs = uc->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)gregs[REG_RIP];

    if (!run->single_step || gregs[REG_TRAPNO] != X86_DB || info->si_code != TRAP_TRACE)
        return false;
    if (out->n_steps || rip == run->in.rip) { /* else it is on its way there */
        if (out->n_steps == SEQ_MAX_STEPS)
            return false;
        struct seq_step *step = &out->step[out->n_steps++];
        *step = (struct seq_step){.rip = rip, .rflags = (uint64_t)gregs[REG_EFL]};
        save_gpr(step->gpr, gregs);
    }
    gregs[REG_EFL] |= X86_FLAG_TF;
    *(uint64_t *)(uintptr_t)NATIVE_CTL_BACK_FS = SEQ_FS_BASE;
    *(uint64_t *)(uintptr_t)NATIVE_CTL_BACK_RFLAGS =
        X86_FLAG_FIXED | ((uint64_t)gregs[REG_EFL] & (X86_FLAG_ID | X86_FLAG_NT));
    return true;
}

void native_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;

    if (is_step(CURRENT_RUN, uc, info))
        return;
    *(uint64_t *)(uintptr_t)NATIVE_CTL_BACK_FS = *(uint64_t *)(uintptr_t)NATIVE_CTL_HOST_FS;
    *(uint64_t *)(uintptr_t)NATIVE_CTL_BACK_RFLAGS = X86_FLAG_FIXED;
    save_state(&CURRENT_RUN->out.state, uc, info);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)native_leave;
    uc->uc_mcontext.gregs[REG_RSP] = *(greg_t *)(uintptr_t)NATIVE_CTL_HOST;
    uc->uc_mcontext.gregs[REG_CSGSFS] = (uc->uc_mcontext.gregs[REG_CSGSFS] & ~(greg_t)0xffff) | USER_CS;
    uc->uc_mcontext.gregs[REG_EFL] = X86_FLAG_FIXED | X86_FLAG_IF;
    store_le32(fx + 24, 0x1f80);
    store_le64(fx + SEQ_XSAVE_HEADER, 0); /* everything in its initial state */
}

static void load_state(const struct seq_run *run)
{
    const struct seq_state *in = &run->in;
    uint8_t *fx = (uint8_t *)(uintptr_t)NATIVE_CTL_XSAVE;

    memcpy((void *)(uintptr_t)NATIVE_CTL_GPR, in->gpr, sizeof(in->gpr));
    *(uint32_t *)(uintptr_t)NATIVE_CTL_FAR = (uint32_t)in->rip;
    *(uint16_t *)(uintptr_t)(NATIVE_CTL_FAR + 4) = run->compat ? USER_CS32 : USER_CS;
    *(uint16_t *)(uintptr_t)NATIVE_CTL_DS = run->compat ? USER_DS : 0;
    *(uint64_t *)(uintptr_t)NATIVE_CTL_RFLAGS = in->rflags | (run->single_step ? X86_FLAG_TF : 0);
    seq_to_xsave(in, fx);
}

/* Gives the pages the states that the job asks for, or takes those away again. */
static void protect(const uint8_t pages[SEQ_N_PAGES], bool undo)
{
    for (unsigned i = 0; i < SEQ_N_PAGES; i++) {
        int prot = PROT_READ | PROT_WRITE | (i == SEQ_PAGE_CODE1 ? PROT_EXEC : 0);
        if (pages[i] == SEQ_PAGE_RW)
            continue;
        if (!undo && pages[i] == SEQ_PAGE_RO)
            prot = PROT_READ;
        if (!undo && pages[i] == SEQ_PAGE_ABSENT)
            prot = PROT_NONE;
        if (mprotect((void *)(uintptr_t)seq_page_address(i), 4096, prot))
            _exit(1);
    }
}

static void run_one(struct seq_run *run)
{
    uint8_t *data = (uint8_t *)(uintptr_t)SEQ_DATA, *stack = (uint8_t *)(uintptr_t)SEQ_STACK,
            *vars = (uint8_t *)(uintptr_t)SEQ_VARS;
    struct seq_result *out = &run->out;

    memcpy((void *)(uintptr_t)SEQ_CODE, run->code, SEQ_CODE_SIZE);
    memcpy(data, run->mem_in, SEQ_DATA_SIZE);
    memcpy(stack, run->mem_in + SEQ_DATA_SIZE, SEQ_STACK_SIZE);
    memcpy(vars, run->mem_in + SEQ_DATA_SIZE + SEQ_STACK_SIZE, SEQ_VARS_SIZE);
    CURRENT_RUN = run;
    out->n_steps = 0;
    load_state(run);
    protect(run->pages, false);
    native_enter();
    protect(run->pages, true);
    memcpy(out->mem, data, SEQ_DATA_SIZE);
    memcpy(out->mem + SEQ_DATA_SIZE, stack, SEQ_STACK_SIZE);
    memcpy(out->mem + SEQ_DATA_SIZE + SEQ_STACK_SIZE, vars, SEQ_VARS_SIZE);
    out->lost = false;
}

/*
 * A sequence that returns to an address which it has changed may run its own bytes in another way. The kernel shall not hear of that:
 * what is in the sandbox calls nobody.
 */
static void forbid_syscalls(void)
{
    const unsigned ip = offsetof(struct seccomp_data, instruction_pointer);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ip + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ip),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, NATIVE_CTL, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
        _exit(1);
}

static void child_prepare(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    uint8_t pool[SEQ_POOL_SIZE];
    struct sigaction sa = {.sa_sigaction = native_on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    stack_t alt = {.ss_size = 65536};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alt.ss_sp = mmap(NULL, alt.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (alt.ss_sp == MAP_FAILED || sigaltstack(&alt, NULL))
        _exit(1);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &sa, NULL);

    int rw = PROT_READ | PROT_WRITE;
    if (map_fixed(SEQ_CODE, SEQ_CODE_SIZE, rw | PROT_EXEC) == MAP_FAILED ||
        map_fixed(SEQ_DATA, SEQ_DATA_SIZE, rw) == MAP_FAILED || map_fixed(SEQ_POOL, SEQ_POOL_SIZE, rw) == MAP_FAILED ||
        map_fixed(SEQ_STACK, SEQ_STACK_SIZE, rw) == MAP_FAILED || map_fixed(SEQ_VARS, 4096, rw) == MAP_FAILED ||
        map_fixed(NATIVE_CTL, 4096, rw) == MAP_FAILED)
        _exit(1);
    seq_pool(pool);
    memcpy((void *)(uintptr_t)SEQ_POOL, pool, sizeof(pool));
    mprotect((void *)(uintptr_t)SEQ_POOL, SEQ_POOL_SIZE, PROT_READ);
    mprotect((void *)(uintptr_t)SEQ_CODE, SEQ_CODE_SIZE, rw | PROT_EXEC);
    forbid_syscalls();
}

static _Noreturn void child_main(struct seq_run *runs, int in, int out)
{
    uint8_t n;

    child_prepare();
    while (read(in, &n, 1) == 1) {
        for (unsigned i = 0; i < n; i++)
            run_one(&runs[i]);
        if (write(out, &n, 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- the parent ---- */

static int start_child(struct native *native)
{
    int down[2], up[2];

    if (pipe2(down, O_CLOEXEC))
        return -errno;
    if (pipe2(up, O_CLOEXEC)) {
        close(down[0]);
        close(down[1]);
        return -errno;
    }
    native->child = fork();
    if (native->child == 0) {
        close(down[1]);
        close(up[0]);
        child_main(native->runs, down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    native->to_child = down[1];
    native->from_child = up[0];
    return native->child < 0 ? -errno : 0;
}

static void stop_child(struct native *native)
{
    close(native->to_child);
    close(native->from_child);
    if (native->child > 0) {
        kill(native->child, SIGKILL);
        waitpid(native->child, NULL, 0);
    }
    native->child = -1;
}

int native_open(struct native *native)
{
    size_t size = NATIVE_BATCH * sizeof(*native->runs);

    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return -ENOSYS;
    native->runs = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (native->runs == MAP_FAILED)
        return -ENOMEM;
    int r = start_child(native);
    if (r)
        munmap(native->runs, size);
    return r;
}

void native_close(struct native *native)
{
    stop_child(native);
    munmap(native->runs, NATIVE_BATCH * sizeof(*native->runs));
}

int native_start(struct native *native, unsigned n)
{
    uint8_t byte = (uint8_t)n;

    for (unsigned i = 0; i < n; i++)
        native->runs[i].out.lost = true;
    return write(native->to_child, &byte, 1) == 1 ? 0 : -EPIPE;
}

int native_wait(struct native *native, unsigned n)
{
    struct pollfd fd = {.fd = native->from_child, .events = POLLIN};
    uint8_t byte;

    if (poll(&fd, 1, PATIENCE_MS) == 1 && read(native->from_child, &byte, 1) == 1)
        return 0;
    stop_child(native);
    return start_child(native);
}
