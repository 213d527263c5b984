#include "engine/kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "x86/state.h"

#define PROBE_NS   INT64_C(5000000)
#define PAGE_SIZE  4096
#define TSS_ADDR   0xfffbd000u /* three pages that Intel's KVM wants, outside of the guest's memory */
#define SIGSET_LEN 8           /* the kernel's sigset_t */

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid /* glibc before 2.38 has no name for it */
#endif

struct probe {
    const char *device;
    int kvm, vm, vcpu;
    void *code; /* the guest's one page, at 0 */
    struct kvm_run *run;
    size_t run_size;
};

/* 1: dec %ecx; jmp 1b */
static const uint8_t loop_code[] = {0x49, 0xeb, 0xfd};

/* ---- a VM with one vCPU ---- */

static int no_permission(const char *device, struct err *err)
{
    struct stat st;

    if (stat(device, &st) < 0 || !(st.st_mode & S_IRGRP) || !(st.st_mode & S_IWGRP))
        return err_set(err, -EACCES, "%s: permission denied; only its owner may use it", device);
    const struct group *group = getgrgid(st.st_gid);
    if (!group)
        return err_set(err, -EACCES, "%s: permission denied; it is for the group %u", device, st.st_gid);
    return err_set(err, -EACCES, "%s: permission denied; it is for the group '%s'", device, group->gr_name);
}

static int check_version(const char *device, int fd, struct err *err)
{
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return err_set(err, -errno, "%s: no KVM: %s", device, strerror(errno));
    if (version != KVM_API_VERSION)
        return err_set(err, -EPROTO, "%s: KVM's API is version %d; accepted is %d", device, version, KVM_API_VERSION);
    return 0;
}

int kvm_probe_open(const char *device, int *fd, struct err *err)
{
    *fd = open(device, O_RDWR | O_CLOEXEC);
    if (*fd < 0 && (errno == ENOENT || errno == ENXIO || errno == ENODEV))
        return err_set(err, -ENODEV, "%s: not there; the host's CPU or kernel offers no KVM", device);
    if (*fd < 0 && errno == EACCES)
        return no_permission(device, err);
    if (*fd < 0)
        return err_set(err, -errno, "%s: %s", device, strerror(errno));
    int r = check_version(device, *fd, err);
    if (r < 0) {
        close(*fd);
        *fd = -1;
    }
    return r;
}

static int failed(const struct probe *p, const char *call, struct err *err)
{
    return err_set(err, -errno, "%s: %s: %s", p->device, call, strerror(errno));
}

static int make_vm(struct probe *p, struct err *err)
{
    p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return failed(p, "KVM_CREATE_VM", err);
    p->code = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->code == MAP_FAILED)
        return failed(p, "memory", err);
    memcpy(p->code, loop_code, sizeof(loop_code));
    const struct kvm_userspace_memory_region region = {.memory_size = PAGE_SIZE, .userspace_addr = (uintptr_t)p->code};
    if (ioctl(p->vm, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDR) < 0)
        return failed(p, "KVM_SET_TSS_ADDR", err);
    if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return failed(p, "KVM_SET_USER_MEMORY_REGION", err);
    return 0;
}

static struct kvm_segment flat(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){
        .limit = UINT32_MAX, .selector = selector, .type = type, .present = 1, .db = 1, .s = 1, .g = 1};
}

/* 32-bit protected mode, ring 0, at the loop. */
static int set_registers(struct probe *p, struct err *err)
{
    const struct kvm_regs regs = {.rcx = UINT32_MAX, .rflags = X86_FLAG_FIXED};
    struct kvm_sregs sregs;

    if (ioctl(p->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return failed(p, "KVM_GET_SREGS", err);
    sregs.cr0 |= X86_CR0_PE;
    sregs.cs = flat(0x08, 0xb);
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = flat(0x10, 0x3);
    if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs) < 0)
        return failed(p, "KVM_SET_SREGS", err);
    if (ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
        return failed(p, "KVM_SET_REGS", err);
    return 0;
}

static int make_vcpu(struct probe *p, struct err *err)
{
    int size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    if (size < 0)
        return failed(p, "KVM_GET_VCPU_MMAP_SIZE", err);
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0)
        return failed(p, "KVM_CREATE_VCPU", err);
    p->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    p->run_size = (size_t)size;
    if (p->run == MAP_FAILED)
        return failed(p, "the vCPU's kvm_run", err);
    return set_registers(p, err);
}

/* ---- the run ---- */

static int64_t time_on(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* KVM_RUN until the timer's signal, which is blocked but inside, and stays pending: it cannot come too early to end a run. */
static int run_until_signal(struct probe *p, struct err *err)
{
    int64_t start = time_on(CLOCK_MONOTONIC);

    while (time_on(CLOCK_MONOTONIC) - start < PROBE_NS) {
        if (ioctl(p->vcpu, KVM_RUN, 0) == 0)
            return err_set(err, -EIO, "%s: a loop in ring 0 ended with exit %u", p->device, p->run->exit_reason);
        if (errno != EINTR && errno != EAGAIN)
            return failed(p, "KVM_RUN", err);
    }
    return 0;
}

static int set_signal_mask(struct probe *p, const sigset_t *mask, struct err *err)
{
    union {
        struct kvm_signal_mask mask;
        uint8_t bytes[sizeof(struct kvm_signal_mask) + SIGSET_LEN];
    } arg = {.mask.len = SIGSET_LEN};

    memcpy(arg.bytes + sizeof(arg.mask), mask, SIGSET_LEN);
    return ioctl(p->vcpu, KVM_SET_SIGNAL_MASK, &arg) < 0 ? failed(p, "KVM_SET_SIGNAL_MASK", err) : 0;
}

static int run_timed(struct probe *p, struct err *err)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    const struct itimerspec after = {.it_value.tv_nsec = PROBE_NS};
    const struct timespec at_once = {0};
    sigset_t ours, before, inside;
    timer_t timer;

    sigemptyset(&ours);
    sigaddset(&ours, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    inside = before;
    sigdelset(&inside, SIGRTMIN);
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    int r = set_signal_mask(p, &inside, err);
    if (r == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
        r = failed(p, "timer", err);
    if (r == 0) {
        timer_settime(timer, 0, &after, NULL);
        r = run_until_signal(p, err);
        timer_delete(timer);
        while (sigtimedwait(&ours, NULL, &at_once) > 0)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int measure(struct probe *p, uint64_t *rate, struct err *err)
{
    struct kvm_regs regs;
    int64_t start = time_on(CLOCK_THREAD_CPUTIME_ID); /* others on the host's CPU are not KVM's fault */
    int r = run_timed(p, err);

    if (r < 0)
        return r;
    int64_t took = time_on(CLOCK_THREAD_CPUTIME_ID) - start;
    if (ioctl(p->vcpu, KVM_GET_REGS, &regs) < 0)
        return failed(p, "KVM_GET_REGS", err);
    uint64_t instructions = 2 * (uint64_t)(UINT32_MAX - (uint32_t)regs.rcx);
    *rate = (uint64_t)((unsigned __int128)instructions * NS_PER_SEC / (uint64_t)(took > 0 ? took : 1));
    if (*rate < KVM_PROBE_LEAST)
        return err_set(err, -EOPNOTSUPP, "%s: interprets kernel code (%.1f M instructions/s)", p->device,
                       (double)*rate / 1e6);
    return 0;
}

int kvm_probe(const char *device, uint64_t *rate, struct err *err)
{
    struct probe p = {.device = device, .kvm = -1, .vm = -1, .vcpu = -1, .code = MAP_FAILED, .run = MAP_FAILED};

    *rate = 0;
    int r = kvm_probe_open(device, &p.kvm, err);
    if (r == 0)
        r = make_vm(&p, err);
    if (r == 0)
        r = make_vcpu(&p, err);
    if (r == 0)
        r = measure(&p, rate, err);
    if (p.run != MAP_FAILED)
        munmap(p.run, p.run_size);
    if (p.vcpu >= 0)
        close(p.vcpu);
    if (p.vm >= 0)
        close(p.vm);
    if (p.code != MAP_FAILED)
        munmap(p.code, PAGE_SIZE);
    if (p.kvm >= 0)
        close(p.kvm);
    return r;
}
