/*
 * What the guest left for, a handler for each of KVM's exit reasons (Linux, Documentation/virt/kvm/api.rst, "The kvm_run structure"). A handler
 * that gives the kernel an answer sets `unfinished`: the instruction ends when KVM_RUN is called again.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "x86/msr.h"

#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_X2APIC            0x800u
#define MSR_X2APIC_LAST       0x8ffu

void kvm_exit_count(struct engine_vcpu *v, enum engine_exit_reason reason, uint64_t detail)
{
    const struct engine_trace *trace = v->engine->trace;
    struct kvm_regs regs = {0};

    v->conf.stats->exits[reason]++;
    v->reason = reason;
    if (LIKELY(!trace) || !trace->exit)
        return;
    (void)ioctl(v->fd, KVM_GET_REGS, &regs);
    trace->exit(trace->opaque, v->conf.index, reason, regs.rip, detail);
}

static bool end(struct engine_vcpu *v, enum engine_exit exit)
{
    v->exit = exit;
    return true;
}

/* A string instruction comes with all its items at once. */
static bool on_io(struct engine_vcpu *v)
{
    const struct kvm_run *run = v->run;
    uint8_t *data = (uint8_t *)v->run + run->io.data_offset;
    bool write = run->io.direction == KVM_EXIT_IO_OUT;

    kvm_exit_count(v, write ? ENGINE_EXIT_PIO_OUT : ENGINE_EXIT_PIO_IN, run->io.port);
    v->unfinished = true;
    for (uint32_t i = 0; i < run->io.count; i++)
        bus_access(v->conf.pio, run->io.port, data + (size_t)i * run->io.size, run->io.size, write);
    return false;
}

static bool on_mmio(struct engine_vcpu *v)
{
    struct kvm_run *run = v->run;

    kvm_exit_count(v, run->mmio.is_write ? ENGINE_EXIT_MMIO_WRITE : ENGINE_EXIT_MMIO_READ, run->mmio.phys_addr);
    v->unfinished = true;
    bus_access(v->conf.mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len, run->mmio.is_write);
    return false;
}

/* The kernel asks for MSRs that it does not keep, and those of the local APIC. What it keeps and has refused is refused. */
static bool asks_for(const struct engine_vcpu *v)
{
    const struct kvm_run *run = v->run;

    return run->msr.reason == KVM_MSR_EXIT_REASON_FILTER ||
           (!v->engine->has_lapics && run->msr.index >= MSR_X2APIC && run->msr.index <= MSR_X2APIC_LAST);
}

static struct msr_env msr_env(struct engine_vcpu *v)
{
    return (struct msr_env){.st = &v->st, .cpuid = v->conf.cpuid, .port = v->conf.port, .clock = v->conf.clock};
}

static bool on_rdmsr(struct engine_vcpu *v)
{
    const struct msr_env env = msr_env(v);
    struct kvm_run *run = v->run;
    uint64_t val = 0;

    kvm_exit_count(v, ENGINE_EXIT_MSR_READ, run->msr.index);
    v->unfinished = true;
    run->msr.error = !asks_for(v) || msr_read(&env, run->msr.index, &val) < 0;
    /* Guest code runs on the host's CPU: it is free of the flaws that this is free of. */
    run->msr.data = run->msr.index == MSR_ARCH_CAPABILITIES ? val & v->engine->arch_capabilities : val;
    return false;
}

static bool on_wrmsr(struct engine_vcpu *v)
{
    const struct msr_env env = msr_env(v);
    struct kvm_run *run = v->run;

    kvm_exit_count(v, ENGINE_EXIT_MSR_WRITE, run->msr.index);
    v->unfinished = true;
    run->msr.error = !asks_for(v) || msr_write(&env, run->msr.index, run->msr.data) < 0;
    return false;
}

/* kvm_run() returns HALT unless a pin is up that ends it. */
static bool on_hlt(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_HLT, 0);
    v->halted = true;
    return false;
}

/* A local APIC in the kernel tells the IOAPIC that a level has been served. */
static bool on_eoi(struct engine_vcpu *v)
{
    const struct vcpu_port *port = v->conf.port;

    kvm_exit_count(v, ENGINE_EXIT_EOI, v->run->eoi.vector);
    if (port->apic_ops && port->apic_ops->eoi)
        port->apic_ops->eoi(port->apic, v->run->eoi.vector);
    return false;
}

static bool on_ring_full(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_DIRTY_RING, 0);
    kvm_memory_ring_full(v);
    return false;
}

/* On the next way in the interrupt goes with it. */
static bool on_window(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_WINDOW, 0);
    return false;
}

static bool on_shutdown(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_SHUTDOWN, 0);
    return end(v, ENGINE_SHUTDOWN);
}

static bool on_intr(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_KICK, 0);
    return false;
}

/* CR8 has been taken over by now. */
static bool on_tpr(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_CR_ACCESS, 8);
    return false;
}

static bool on_debug(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_DEBUG, 0);
    return kvm_debug_exit(v);
}

static bool on_system_event(struct engine_vcpu *v)
{
    kvm_exit_count(v, ENGINE_EXIT_EVENT, v->run->system_event.type);
    return end(v, ENGINE_RESET);
}

/* SDM Vol. 3C 27.8, basic exit reasons 33, 34 and 41 with bit 31; AMD's manual, Vol. 2 appendix C, VMEXIT_INVALID. */
static const char *entry_failure(uint64_t reason)
{
    switch (reason) {
    case 0x80000021:
        return ": the guest's state is not valid";
    case 0x80000022:
        return ": the MSRs to load are not valid";
    case 0x80000029:
        return ": a machine check";
    case UINT64_MAX:
    case UINT32_MAX:
        return ": the guest's state or its control block is not valid";
    default:
        return "";
    }
}

static bool on_fail_entry(struct engine_vcpu *v)
{
    uint64_t reason = v->run->fail_entry.hardware_entry_failure_reason;

    kvm_report(v, "the CPU refuses to enter the guest, hardware reason %#llx%s", (unsigned long long)reason,
               entry_failure(reason));
    return true;
}

static bool on_unknown(struct engine_vcpu *v)
{
    kvm_report(v, "an exit of the CPU that KVM does not know, hardware reason %#llx",
               (unsigned long long)v->run->hw.hardware_exit_reason);
    return true;
}

/* The bytes that KVM has tried, where it says so: what is in memory by now may be another thing. ": 0f ae 3f" */
static void print_instruction(const struct kvm_run *run, char *text)
{
    size_t n = run->emulation_failure.insn_size;

    if (run->emulation_failure.ndata < 1 ||
        !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        return;
    for (size_t i = 0; i < n && i < sizeof(run->emulation_failure.insn_bytes); i++)
        text += sprintf(text, "%s%02x", i ? " " : ": ", run->emulation_failure.insn_bytes[i]);
}

static bool on_internal_error(struct engine_vcpu *v)
{
    static const char *const names[] = {
        [KVM_INTERNAL_ERROR_EMULATION] = "an instruction that KVM cannot emulate",
        [KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit while an event was delivered",
        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit that KVM did not expect",
    };
    uint32_t error = v->run->internal.suberror;
    char bytes[3 * sizeof(v->run->emulation_failure.insn_bytes) + 2] = "";

    if (error == KVM_INTERNAL_ERROR_EMULATION)
        print_instruction(v->run, bytes);
    kvm_report(v, "internal error %u: %s%s", error,
               error < ARRAY_SIZE(names) && names[error] ? names[error] : "unknown", bytes);
    return true;
}

static bool (*const handlers[])(struct engine_vcpu *v) = {
    [KVM_EXIT_UNKNOWN] = on_unknown,
    [KVM_EXIT_IO] = on_io,
    [KVM_EXIT_DEBUG] = on_debug,
    [KVM_EXIT_HLT] = on_hlt,
    [KVM_EXIT_MMIO] = on_mmio,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = on_window,
    [KVM_EXIT_SHUTDOWN] = on_shutdown,
    [KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
    [KVM_EXIT_INTR] = on_intr,
    [KVM_EXIT_SET_TPR] = on_tpr,
    [KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
    [KVM_EXIT_IOAPIC_EOI] = on_eoi,
    [KVM_EXIT_SYSTEM_EVENT] = on_system_event,
    [KVM_EXIT_DIRTY_RING_FULL] = on_ring_full,
    [KVM_EXIT_X86_RDMSR] = on_rdmsr,
    [KVM_EXIT_X86_WRMSR] = on_wrmsr,
};

static bool handle(struct engine_vcpu *v)
{
    uint32_t reason = v->run->exit_reason;

    if (reason < ARRAY_SIZE(handlers) && handlers[reason])
        return handlers[reason](v);
    kvm_report(v, "exit %u, which nobody has asked for", reason);
    return true;
}

/* The time is that of every exit; of port and memory accesses it is the devices'. */
bool kvm_exit(struct engine_vcpu *v)
{
    struct engine_stats *stats = v->conf.stats;
    int64_t before = loop_now();

    v->reason = ENGINE_N_EXITS;
    bool ended = handle(v);
    if (v->reason == ENGINE_N_EXITS)
        return ended;
    int64_t took = loop_now() - before;
    stats->exit_ns[v->reason] += took;
    if (v->reason <= ENGINE_EXIT_MMIO_WRITE)
        stats->device_ns += took;
    return ended;
}
