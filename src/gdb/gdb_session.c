/* See gdb_session.h. */
#include "gdb/gdb_session.h"

#include <errno.h>

#include "gdb/gdb_command.h"

/* ---- registers ---- */

void gdb_session_get_regs(struct gdb_session *s, unsigned vcpu, struct gdb_regs *regs)
{
    const struct vcpu_port *port = &s->vm->vcpus[vcpu]->port;

    vcpu_get_state(s->vm->vcpus[vcpu], &regs->st);
    regs->cr8 = port->apic_ops ? port->apic_ops->cr8_get(port->apic) : 0;
}

void gdb_session_set_regs(struct gdb_session *s, unsigned vcpu, const struct gdb_regs *regs)
{
    struct vcpu *v = s->vm->vcpus[vcpu];
    struct x86_state old, st = regs->st;

    vcpu_get_state(v, &old);
    if (st.rip != old.rip && st.activity == X86_HALTED) /* sent elsewhere, it has nothing to wait for */
        st.activity = X86_RUNNING;
    vcpu_set_state(v, &st);
    if (v->port.apic_ops && v->port.apic_ops->cr8_get(v->port.apic) != regs->cr8)
        v->port.apic_ops->cr8_set(v->port.apic, regs->cr8);
}

/* ---- sending ---- */

void gdb_session_send(struct gdb_session *s)
{
    gdb_packet_end(&s->out);
    s->send(s->opaque, s->out.data, s->out.len);
}

static void tell_breakpoint(struct gdb_session *s)
{
    static const char *const names[GDB_TYPE_N] = {"swbreak", "hwbreak", "watch", "rwatch", "awatch"};
    const struct gdb_stop *stop = &s->stop;

    if (stop->type >= GDB_TYPE_WRITE)
        gdb_packet_text(&s->out, "%s:%llx;", names[stop->type], (unsigned long long)stop->addr);
    else if (s->tells_breakpoints)
        gdb_packet_text(&s->out, "%s:;", names[stop->type]);
}

void gdb_session_tell_stop(struct gdb_session *s)
{
    /* What a debugger asks for after each stop. */
    static const uint8_t expedited[] = {GDB_REGS_RIP_0, GDB_REGS_GPR_X86_RSP, GDB_REGS_GPR_X86_RBP};
    struct gdb_regs regs;
    uint8_t value[GDB_REGS_BYTES_MAX];

    gdb_session_get_regs(s, s->stop.vcpu, &regs);
    gdb_packet_begin(&s->out);
    gdb_packet_text(&s->out, "T%02xthread:%x;", (unsigned)s->stop.signal, s->stop.vcpu + 1);
    if (s->stop.type != GDB_TYPE_NONE)
        tell_breakpoint(s);
    for (size_t i = 0; i < sizeof(expedited); i++) {
        gdb_regs_get(&regs, expedited[i], value);
        gdb_packet_text(&s->out, "%02x:", expedited[i]);
        gdb_packet_hex(&s->out, value, gdb_regs_size(expedited[i]));
        gdb_packet_text(&s->out, ";");
    }
    gdb_session_send(s);
}

/* ---- breakpoints ---- */

static bool find_breakpoint(const struct gdb_session *s, enum gdb_type type, uint64_t addr, unsigned *at)
{
    for (unsigned i = 0; i < s->n_breakpoints; i++) {
        if (s->types[i] == type && s->breakpoints[i].addr == addr) {
            *at = i;
            return true;
        }
    }
    return false;
}

int gdb_session_set_breakpoint(struct gdb_session *s, enum gdb_type type, uint64_t addr, uint64_t len)
{
    static const uint8_t kinds[GDB_TYPE_N] = {ENGINE_BREAK_EXEC, ENGINE_BREAK_EXEC, ENGINE_BREAK_WRITE,
                                              ENGINE_BREAK_READ, ENGINE_BREAK_READ | ENGINE_BREAK_WRITE};
    unsigned at;

    if (!find_breakpoint(s, type, addr, &at)) {
        if (s->n_breakpoints == GDB_SESSION_BREAKPOINTS)
            return -ENOSPC;
        at = s->n_breakpoints++;
    }
    s->breakpoints[at] = (struct engine_breakpoint){.addr = addr, .len = len, .kinds = kinds[type]};
    s->types[at] = (uint8_t)type;
    return 0;
}

void gdb_session_clear_breakpoint(struct gdb_session *s, enum gdb_type type, uint64_t addr)
{
    unsigned at;

    if (!find_breakpoint(s, type, addr, &at))
        return;
    s->n_breakpoints--;
    s->breakpoints[at] = s->breakpoints[s->n_breakpoints];
    s->types[at] = s->types[s->n_breakpoints];
}

/* ---- running and standing ---- */

static void pause_vm(struct gdb_session *s)
{
    if (!s->paused)
        vm_pause(s->vm);
    s->paused = true;
}

static void resume_vm(struct gdb_session *s)
{
    s->paused = false;
    vm_resume(s->vm);
}

static struct gdb_stop stop_of(const struct gdb_session *s, unsigned vcpu)
{
    const struct engine_breakpoint *hit = s->vm->vcpus[vcpu]->debug.hit;
    struct gdb_stop stop = {.vcpu = vcpu, .signal = GDB_SIGTRAP, .type = GDB_TYPE_NONE};

    if (s->vm->vcpus[vcpu]->shut_down)
        stop.signal = GDB_SIGSEGV; /* as for a program whose own handlers could not help it */
    if (hit) {
        stop.type = (enum gdb_type)s->types[hit - s->breakpoints];
        stop.addr = hit->addr;
    }
    return stop;
}

/*
 * The vCPUs stand, and one's stop is told: what of the others'? A breakpoint will be met again. A watched access has been made.
 */
static void keep_others(struct gdb_session *s)
{
    for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++) {
        struct gdb_stop stop = {.type = GDB_TYPE_NONE};
        if (i != s->stop.vcpu && s->vm->vcpus[i]->debug_stopped)
            stop = stop_of(s, i);
        if (stop.type != GDB_TYPE_NONE && stop.type >= GDB_TYPE_WRITE)
            s->pending[i] = stop;
        s->vm->vcpus[i]->debug_stopped = false;
    }
}

/* While they stand: tells of one that has stopped for the debugger. False where none has. */
static bool tell_stopped(struct gdb_session *s)
{
    for (unsigned n = 0; n < s->vm->conf.n_vcpus; n++) {
        unsigned i = (s->stop.vcpu + n) % s->vm->conf.n_vcpus; /* rather stay where the user is */
        if (!s->vm->vcpus[i]->debug_stopped)
            continue;
        s->stop = stop_of(s, i);
        keep_others(s);
        s->selected = i;
        gdb_session_tell_stop(s);
        return true;
    }
    return false;
}

void gdb_session_stopped(void *session)
{
    struct gdb_session *s = session;

    if (!s->attached || s->paused)
        return; /* whoever paused it has looked at it */
    pause_vm(s);
    if (!tell_stopped(s))
        resume_vm(s); /* that was before the VM was let go last */
}

/* A stop that has not been told and still means something. */
static bool take_pending(struct gdb_session *s, unsigned vcpu)
{
    struct gdb_stop *stop = &s->pending[vcpu];
    unsigned at;
    bool due = stop->type != GDB_TYPE_NONE && find_breakpoint(s, stop->type, stop->addr, &at);

    if (due)
        s->stop = *stop;
    stop->type = GDB_TYPE_NONE;
    return due;
}

void gdb_session_resume(struct gdb_session *s, const enum gdb_action action[VM_MAX_VCPUS])
{
    for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++) {
        if (action[i] != GDB_STAND && take_pending(s, i)) {
            gdb_session_tell_stop(s);
            return;
        }
    }
    for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++) {
        struct vcpu *vcpu = s->vm->vcpus[i];
        vcpu->frozen = action[i] == GDB_STAND;
        vcpu->debug = (struct engine_debug){
            .step = action[i] == GDB_STEP, .breakpoints = s->breakpoints, .n_breakpoints = s->n_breakpoints};
        vcpu_debug(vcpu, true);
        if (action[i] == GDB_STEP)
            s->stop.vcpu = i;
    }
    resume_vm(s);
}

/* ---- the debugger's coming and going ---- */

void gdb_session_init(struct gdb_session *s, struct vm *vm, bool hold,
                      void (*send)(void *opaque, const void *data, size_t len), void *opaque)
{
    *s = (struct gdb_session){.vm = vm, .send = send, .opaque = opaque};
    vm->debugger = (struct vm_debugger){.stopped = gdb_session_stopped, .opaque = s};
    if (hold)
        pause_vm(s);
}

static void forget(struct gdb_session *s)
{
    s->n_breakpoints = 0;
    for (unsigned i = 0; i < VM_MAX_VCPUS; i++)
        s->pending[i].type = GDB_TYPE_NONE;
    for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++) {
        s->vm->vcpus[i]->frozen = false;
        vcpu_debug(s->vm->vcpus[i], false);
    }
}

void gdb_session_attach(struct gdb_session *s)
{
    pause_vm(s);
    forget(s);
    s->attached = s->vm->debugger.attached = true;
    s->over = s->no_ack = s->tells_breakpoints = false;
    s->selected = 0;
    s->stepped = VM_MAX_VCPUS;
    s->stop = (struct gdb_stop){.signal = GDB_SIGTRAP, .type = GDB_TYPE_NONE};
    s->in = (struct gdb_packet_reader){0};
    s->out.len = 0;
}

void gdb_session_detach(struct gdb_session *s)
{
    if (!s->attached)
        return;
    pause_vm(s);
    s->attached = s->vm->debugger.attached = false;
    forget(s);
    resume_vm(s);
}

void gdb_session_end(struct gdb_session *s, int status, int signal)
{
    if (!s->attached || s->paused || s->over)
        return; /* it does not wait for the VM to stop */
    gdb_packet_begin(&s->out);
    if (signal)
        gdb_packet_text(&s->out, "X%02x", (unsigned)signal & 0xff);
    else
        gdb_packet_text(&s->out, "W%02x", (unsigned)status & 0xff);
    gdb_session_send(s);
}

/* ---- input ---- */

static void interrupt(struct gdb_session *s)
{
    if (s->paused)
        return;
    pause_vm(s);
    if (tell_stopped(s))
        return;
    s->stop = (struct gdb_stop){.vcpu = s->stop.vcpu, .signal = GDB_SIGINT, .type = GDB_TYPE_NONE};
    s->selected = s->stop.vcpu;
    gdb_session_tell_stop(s);
}

static void acknowledge(struct gdb_session *s, char how)
{
    if (!s->no_ack)
        s->send(s->opaque, &how, 1);
}

void gdb_session_input(struct gdb_session *s, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && !s->over; i++) {
        switch (gdb_packet_read(&s->in, data[i])) {
        case GDB_PACKET_COMPLETE:
            acknowledge(s, '+');
            if (s->paused || strcmp(s->in.data, "k") == 0) /* while the VM runs, a debugger may ask for nothing else */
                gdb_command_run(s);
            break;
        case GDB_PACKET_BAD:
            acknowledge(s, '-');
            break;
        case GDB_PACKET_NAK:
            if (!s->no_ack && s->out.len)
                s->send(s->opaque, s->out.data, s->out.len);
            break;
        case GDB_PACKET_INTERRUPT:
            interrupt(s);
            break;
        case GDB_PACKET_ACK:
        case GDB_PACKET_NOTHING:
            break;
        }
    }
}
