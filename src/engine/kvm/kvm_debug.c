/*
 * What a debugger outside the guest asks for, by KVM_SET_GUEST_DEBUG: single steps, and the CPU's four debug registers for its breakpoints, in place
 * of the guest's own meanwhile. Code breakpoints beyond four are met by stepping; watched ranges beyond them are not, and that is logged.
 * The CPU knows no watchpoint for reads alone: one stops for writes too.
 *
 * A limit of instructions is counted by stepping.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "base/log.h"

#define SLOTS           4
#define DR6_SLOTS       0xfu
#define DR7_FIXED       0x400u
#define DR7_ENABLE(n)   (2u << (2 * (n))) /* G0 to G3 */
#define DR7_KIND(n, rw) ((uint32_t)(rw) << (16 + 4 * (n)))
#define DR7_LEN(n, len) ((uint32_t)(len) << (18 + 4 * (n)))
#define LONGEST         8u

enum { RW_EXEC = 0, RW_WRITE = 1, RW_ANY = 3 };

/* LEN in DR7 (SDM Vol. 3B 17.2.4). */
static uint32_t len_code(uint64_t len)
{
    return len == 8 ? 2 : (uint32_t)len - 1;
}

/* The longest piece from `addr` that a debug register can watch. */
static uint64_t piece(uint64_t addr, uint64_t len)
{
    uint64_t n = LONGEST;

    while (n > len || addr % n)
        n /= 2;
    return n;
}

/* false: no register is left for all of it. */
static bool add(struct engine_vcpu *v, struct kvm_guest_debug *debug, const struct engine_breakpoint *b)
{
    bool exec = b->kinds & ENGINE_BREAK_EXEC;
    unsigned rw = exec ? RW_EXEC : b->kinds & ENGINE_BREAK_READ ? RW_ANY : RW_WRITE;
    uint64_t addr = b->addr, left = exec ? 1 : b->len;

    while (left && v->n_slots < SLOTS) {
        uint64_t n = exec ? 1 : piece(addr, left);
        unsigned slot = v->n_slots++;
        v->slots[slot] = b;
        debug->arch.debugreg[slot] = addr;
        debug->arch.debugreg[7] |= DR7_ENABLE(slot) | DR7_KIND(slot, rw) | DR7_LEN(slot, len_code(n));
        addr += n;
        left -= n;
    }
    return left == 0;
}

static void add_breakpoints(struct engine_vcpu *v, struct kvm_guest_debug *debug)
{
    v->n_slots = 0;
    v->looks = false;
    for (unsigned i = 0; v->debug && i < v->debug->n_breakpoints; i++) {
        const struct engine_breakpoint *b = &v->debug->breakpoints[i];
        if (add(v, debug, b))
            continue;
        if (b->kinds & ENGINE_BREAK_EXEC)
            v->looks = true;
        else
            log_warn("CPU %u: the host's CPU has no debug register left for %#llx", v->conf.index,
                     (unsigned long long)b->addr);
    }
    if (v->n_slots)
        debug->control |= KVM_GUESTDBG_USE_HW_BP;
}

void kvm_debug_apply(struct engine_vcpu *v)
{
    struct kvm_guest_debug debug = {.arch.debugreg[7] = DR7_FIXED};

    if (!v->debug && !v->limited && !v->debugging)
        return;
    add_breakpoints(v, &debug);
    v->steps = v->limited || v->looks || (v->debug && v->debug->step);
    if (v->steps)
        debug.control |= KVM_GUESTDBG_SINGLESTEP;
    if (debug.control)
        debug.control |= KVM_GUESTDBG_ENABLE;
    v->debugging = debug.control != 0;
    if (ioctl(v->fd, KVM_SET_GUEST_DEBUG, &debug) < 0)
        log_error("CPU %u: KVM_SET_GUEST_DEBUG: %s", v->conf.index, strerror(errno));
}

static bool stop(struct engine_vcpu *v, const struct engine_breakpoint *hit)
{
    if (v->debug)
        v->debug->hit = hit;
    v->exit = ENGINE_DEBUG;
    return true;
}

/* A breakpoint that has no register, at the instruction that comes next. */
static const struct engine_breakpoint *look(const struct engine_vcpu *v, uint64_t pc)
{
    for (unsigned i = 0; v->looks && i < v->debug->n_breakpoints; i++)
        if ((v->debug->breakpoints[i].kinds & ENGINE_BREAK_EXEC) && v->debug->breakpoints[i].addr == pc)
            return &v->debug->breakpoints[i];
    return NULL;
}

bool kvm_debug_exit(struct engine_vcpu *v)
{
    const struct kvm_debug_exit_arch *arch = &v->run->debug.arch;

    if (v->debug && (arch->dr6 & DR6_SLOTS) && v->n_slots)
        for (unsigned i = 0; i < v->n_slots; i++)
            if (arch->dr6 >> i & 1)
                return stop(v, v->slots[i]);
    if (v->limited && --v->left == 0)
        return stop(v, NULL);
    if (v->debug && v->debug->step)
        return stop(v, NULL);
    const struct engine_breakpoint *met = look(v, arch->pc);
    return met ? stop(v, met) : false;
}
