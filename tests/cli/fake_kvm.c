/*
 * A KVM that is none, preloaded into vireo: it takes all that a program does to it and runs nothing, but for what the environment tells it to refuse
 * or to end with. So bad luck with KVM can be had on every host.
 *
 *   FAKE_KVM_OPEN=ERRNO           /dev/kvm does not open; with EACCES it is of the group 0
 *   FAKE_KVM_VERSION=N            what KVM_GET_API_VERSION says; -1: the device is no KVM
 *   FAKE_KVM_LACKS=CAP            KVM_CHECK_EXTENSION says 0 to it
 *   FAKE_KVM_VCPUS=N              as many vCPUs a VM, at most
 *   FAKE_KVM_FAIL=REQUEST:ERRNO   the ioctl of that number fails (its low byte, of type 0xae)
 *   FAKE_KVM_RUN=ERRNO            so does KVM_RUN
 *   FAKE_KVM_EXIT=REASON:DETAIL   else KVM_RUN ends with that, KVM_EXIT_HLT unless it is given
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICE   "/dev/kvm"
#define MOST_FDS 1024
#define RUN_SIZE 0x3000
#define TSC_KHZ  2000000
#define N_VCPUS  16
#define KVM_TYPE 0xaeu

struct vcpu {
    struct kvm_run *run;
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
};

enum kind { NONE, KVM, VM, VCPU };

static struct {
    enum kind kind;
    unsigned vcpu;
} fds[MOST_FDS];
static struct vcpu vcpus[N_VCPUS];

static long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 0) : otherwise;
}

/* The number behind the colon. */
static long detail(const char *name)
{
    const char *text = getenv(name), *colon = text ? strchr(text, ':') : NULL;
    return colon ? strtol(colon + 1, NULL, 0) : 0;
}

static int make(enum kind kind, unsigned vcpu)
{
    int fd = memfd_create("fake-kvm", MFD_CLOEXEC);

    if (fd < 0 || fd >= MOST_FDS)
        return -1;
    fds[fd].kind = kind;
    fds[fd].vcpu = vcpu;
    return fd;
}

static int refuse(int error)
{
    errno = error;
    return -1;
}

/* ---- what is called instead of the C library's; with 64-bit offsets open() and stat() are open64() and stat64() ---- */

int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    mode_t mode = 0;
    va_list ap;

    va_start(ap, flags);
    if (flags & (O_CREAT | __O_TMPFILE))
        mode = va_arg(ap, mode_t);
    va_end(ap);
    if (strcmp(path, DEVICE) == 0) {
        long error = setting("FAKE_KVM_OPEN", 0);
        return error ? refuse((int)error) : make(KVM, 0);
    }
    if (!real)
        real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    return real(path, flags, mode);
}

int stat(const char *path, struct stat *st)
{
    static int (*real)(const char *, struct stat *);

    if (strcmp(path, DEVICE) == 0) {
        *st = (struct stat){.st_mode = S_IFCHR | 0660};
        return 0;
    }
    if (!real)
        real = (int (*)(const char *, struct stat *))dlsym(RTLD_NEXT, "stat64");
    return real(path, st);
}

int close(int fd)
{
    static int (*real)(int);

    if (fd >= 0 && fd < MOST_FDS)
        fds[fd].kind = NONE;
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    return real(fd);
}

static int supported_cpuid(struct kvm_cpuid2 *cpuid)
{
    static const unsigned leaves[][2] = {{1, 0}, {7, 0}, {7, 2}, {0xd, 0}, {0xd, 1}, {0x80000001, 0}, {0x80000008, 0}};
    const unsigned n = sizeof(leaves) / sizeof(leaves[0]);

    if (cpuid->nent < n)
        return refuse(E2BIG);
    cpuid->nent = n;
    for (unsigned i = 0; i < n; i++)
        cpuid->entries[i] = (struct kvm_cpuid_entry2){.function = leaves[i][0],
                                                      .index = leaves[i][1],
                                                      .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                                      .eax = ~0u,
                                                      .ebx = ~0u,
                                                      .ecx = ~0u,
                                                      .edx = ~0u};
    cpuid->entries[n - 1].eax = 48 << 8 | 46;
    return 0;
}

static int make_vcpu(unsigned i)
{
    int fd = i < N_VCPUS ? make(VCPU, i) : -1;

    if (fd < 0 || ftruncate(fd, RUN_SIZE) < 0)
        return refuse(EINVAL);
    void *run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED)
        return refuse(ENOMEM);
    vcpus[i].run = run;
    return fd;
}

static int run(struct vcpu *v)
{
    struct kvm_run *r = v->run;
    long error = setting("FAKE_KVM_RUN", 0);

    if (r->immediate_exit)
        return refuse(EINTR);
    if (error)
        return refuse((int)error);
    r->exit_reason = (unsigned)setting("FAKE_KVM_EXIT", KVM_EXIT_HLT);
    unsigned long what = (unsigned long)detail("FAKE_KVM_EXIT");
    if (r->exit_reason == KVM_EXIT_FAIL_ENTRY)
        r->fail_entry.hardware_entry_failure_reason = what;
    else if (r->exit_reason == KVM_EXIT_UNKNOWN)
        r->hw.hardware_exit_reason = what;
    else if (r->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        r->internal.suberror = (unsigned)what;
    if (r->exit_reason == KVM_EXIT_INTERNAL_ERROR && what == KVM_INTERNAL_ERROR_EMULATION) {
        r->emulation_failure.ndata = 3;
        r->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
        r->emulation_failure.insn_size = 3;
        memcpy(r->emulation_failure.insn_bytes, "\x0f\xae\x3f", 3);
    }
    return 0;
}

static int on_vcpu(struct vcpu *v, unsigned long request, void *arg)
{
    switch (request) {
    case KVM_RUN:
        return run(v);
    case KVM_SET_REGS:
        v->regs = *(const struct kvm_regs *)arg;
        return 0;
    case KVM_GET_REGS:
        *(struct kvm_regs *)arg = v->regs;
        return 0;
    case KVM_SET_SREGS2:
        v->sregs = *(const struct kvm_sregs2 *)arg;
        return 0;
    case KVM_GET_SREGS2:
        *(struct kvm_sregs2 *)arg = v->sregs;
        return 0;
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
        return (int)((struct kvm_msrs *)arg)->nmsrs;
    case KVM_GET_TSC_KHZ:
        return TSC_KHZ;
    case KVM_GET_STATS_FD:
        return refuse(EPERM);
    default:
        return 0;
    }
}

static int on_kvm(unsigned long request, void *arg)
{
    long cap = (long)(intptr_t)arg;

    switch (request) {
    case KVM_GET_API_VERSION:
        return setting("FAKE_KVM_VERSION", KVM_API_VERSION) < 0 ? refuse(ENOTTY)
                                                                : (int)setting("FAKE_KVM_VERSION", KVM_API_VERSION);
    case KVM_CHECK_EXTENSION:
        if (cap == setting("FAKE_KVM_LACKS", -1))
            return 0;
        if (cap == KVM_CAP_IRQ_ROUTING || cap == KVM_CAP_NR_MEMSLOTS)
            return 4096;
        if (cap == KVM_CAP_DIRTY_LOG_RING || cap == KVM_CAP_DIRTY_LOG_RING_ACQ_REL)
            return 0;
        return cap == KVM_CAP_MAX_VCPUS || cap == KVM_CAP_NR_VCPUS ? (int)setting("FAKE_KVM_VCPUS", N_VCPUS) : 1;
    case KVM_GET_VCPU_MMAP_SIZE:
        return RUN_SIZE;
    case KVM_GET_SUPPORTED_CPUID:
        return supported_cpuid(arg);
    case KVM_CREATE_VM:
        return make(VM, 0);
    case KVM_GET_MSRS:
        return (int)((struct kvm_msrs *)arg)->nmsrs;
    default:
        return 0;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    va_list ap;

    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    if (fd < 0 || fd >= MOST_FDS || fds[fd].kind == NONE) {
        if (!real)
            real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
        return real(fd, request, arg);
    }
    if (_IOC_TYPE(request) == KVM_TYPE && (long)_IOC_NR(request) == setting("FAKE_KVM_FAIL", -1))
        return refuse((int)detail("FAKE_KVM_FAIL"));
    if (fds[fd].kind == KVM)
        return on_kvm(request, arg);
    if (fds[fd].kind == VCPU)
        return on_vcpu(&vcpus[fds[fd].vcpu], request, arg);
    if (request == KVM_CREATE_VCPU)
        return make_vcpu((unsigned)(uintptr_t)arg);
    return request == KVM_CHECK_EXTENSION ? on_kvm(request, arg) : 0;
}
