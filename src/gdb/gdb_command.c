/* See gdb_command.h. */
#include "gdb/gdb_command.h"

#include <errno.h>
#include <stdio.h>

#include "gdb/gdb_memory.h"
#include "gdb/gdb_query.h"

/* ---- replies ---- */

void gdb_command_reply(struct gdb_session *s, const char *text)
{
    gdb_packet_begin(&s->out);
    gdb_packet_text(&s->out, "%s", text);
    gdb_session_send(s);
}

/* 0, or -errno as gdb sees it. */
void gdb_command_reply_status(struct gdb_session *s, int r)
{
    gdb_packet_begin(&s->out);
    if (r < 0)
        gdb_packet_text(&s->out, "E%02x", (unsigned)-r & 0xff);
    else
        gdb_packet_text(&s->out, "OK");
    gdb_session_send(s);
}

void gdb_command_reply_hex(struct gdb_session *s, const void *data, size_t len)
{
    gdb_packet_begin(&s->out);
    gdb_packet_hex(&s->out, data, len);
    gdb_session_send(s);
}

/* ---- what packets are made of ---- */

bool gdb_command_take(const char **text, const char *what)
{
    size_t len = strlen(what);

    if (strncmp(*text, what, len) != 0)
        return false;
    *text += len;
    return true;
}

/* A thread: "-1" for all, "0" for any, or a number. *vcpu is VM_MAX_VCPUS for all of them. */
bool gdb_command_take_thread(const struct gdb_session *s, const char **text, unsigned *vcpu)
{
    uint64_t n;

    *vcpu = VM_MAX_VCPUS;
    if (gdb_command_take(text, "-1"))
        return true;
    if (!gdb_packet_number(text, &n) || n > s->vm->conf.n_vcpus)
        return false;
    *vcpu = n ? (unsigned)n - 1 : s->stop.vcpu;
    return true;
}

/* "addr,len" */
bool gdb_command_take_range(const char **text, uint64_t *addr, uint64_t *len)
{
    return gdb_packet_number(text, addr) && gdb_command_take(text, ",") && gdb_packet_number(text, len);
}

/* ---- registers ---- */

static void command_get_all(struct gdb_session *s, const char *arg)
{
    struct gdb_regs regs;
    uint8_t value[GDB_REGS_BYTES_MAX];

    gdb_session_get_regs(s, s->selected, &regs);
    gdb_packet_begin(&s->out);
    for (unsigned n = 0; n < GDB_REGS_N; n++) {
        gdb_regs_get(&regs, n, value);
        gdb_packet_hex(&s->out, value, gdb_regs_size(n));
    }
    gdb_session_send(s);
}

/* What may not be changed stays as it is: gdb writes all where it means a few. */
static void command_set_all(struct gdb_session *s, const char *arg)
{
    struct gdb_regs regs;
    uint8_t values[GDB_REGS_N * GDB_REGS_BYTES_MAX], *value = values;
    size_t len = strlen(arg) / 2, size = 0;

    for (unsigned n = 0; n < GDB_REGS_N; n++)
        size += gdb_regs_size(n);
    if (len != size || !gdb_packet_bytes(arg, values, len)) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    gdb_session_get_regs(s, s->selected, &regs);
    int r = 0;
    for (unsigned n = 0; n < GDB_REGS_N; value += gdb_regs_size(n), n++) {
        int one = gdb_regs_set(&regs, n, value, VM_PHYS_BITS);
        r = one == -EINVAL ? one : r;
    }
    if (r == 0)
        gdb_session_set_regs(s, s->selected, &regs);
    gdb_command_reply_status(s, r);
}

static void command_get(struct gdb_session *s, const char *arg)
{
    struct gdb_regs regs;
    uint8_t value[GDB_REGS_BYTES_MAX];
    uint64_t n;

    if (!gdb_packet_number(&arg, &n) || *arg || !gdb_regs_size(n)) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    gdb_session_get_regs(s, s->selected, &regs);
    gdb_regs_get(&regs, (unsigned)n, value);
    gdb_command_reply_hex(s, value, gdb_regs_size(n));
}

static void command_set(struct gdb_session *s, const char *arg)
{
    struct gdb_regs regs;
    uint8_t value[GDB_REGS_BYTES_MAX];
    uint64_t n;

    if (!gdb_packet_number(&arg, &n) || !gdb_command_take(&arg, "=") || !gdb_regs_size(n) ||
        !gdb_packet_bytes(arg, value, gdb_regs_size(n))) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    gdb_session_get_regs(s, s->selected, &regs);
    int r = gdb_regs_set(&regs, (unsigned)n, value, VM_PHYS_BITS);
    if (r == 0)
        gdb_session_set_regs(s, s->selected, &regs);
    gdb_command_reply_status(s, r);
}

/* ---- memory ---- */

static struct gdb_memory memory(struct gdb_session *s, struct gdb_regs *regs)
{
    gdb_session_get_regs(s, s->selected, regs);
    return (struct gdb_memory){.ram = &s->vm->ram, .st = &regs->st, .phys_bits = VM_PHYS_BITS};
}

static void command_read(struct gdb_session *s, const char *arg)
{
    uint8_t data[GDB_PACKET_MAX / 2];
    struct gdb_regs regs;
    uint64_t addr, len;

    if (!gdb_command_take_range(&arg, &addr, &len) || *arg) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    struct gdb_memory m = memory(s, &regs);
    size_t n = gdb_memory_read(&m, addr, data, len < sizeof(data) ? (size_t)len : sizeof(data));
    if (n || !len)
        gdb_command_reply_hex(s, data, n);
    else
        gdb_command_reply_status(s, -EFAULT);
}

static void write_memory(struct gdb_session *s, uint64_t addr, const uint8_t *data, size_t len)
{
    struct gdb_regs regs;
    struct gdb_memory m = memory(s, &regs);

    gdb_command_reply_status(s, gdb_memory_write(&m, addr, data, len));
}

static void command_write(struct gdb_session *s, const char *arg)
{
    uint8_t data[GDB_PACKET_MAX / 2];
    uint64_t addr, len;

    if (!gdb_command_take_range(&arg, &addr, &len) || !gdb_command_take(&arg, ":") || len > sizeof(data) ||
        !gdb_packet_bytes(arg, data, len))
        gdb_command_reply_status(s, -EINVAL);
    else
        write_memory(s, addr, data, len);
}

static void command_write_binary(struct gdb_session *s, const char *arg)
{
    uint64_t addr, len;

    if (!gdb_command_take_range(&arg, &addr, &len) || !gdb_command_take(&arg, ":") ||
        len != (size_t)(s->in.data + s->in.len - arg))
        gdb_command_reply_status(s, -EINVAL);
    else
        write_memory(s, addr, (const uint8_t *)arg, len);
}

/* ---- breakpoints ---- */

/* "type,addr,kind": the kind is the length of what is watched, or the breakpoint instruction's, which is not used. */
static bool take_breakpoint(struct gdb_session *s, const char *arg, enum gdb_type *type, uint64_t *addr, uint64_t *len)
{
    uint64_t n;

    if (!gdb_packet_number(&arg, &n) || !gdb_command_take(&arg, ",") || !gdb_command_take_range(&arg, addr, len) ||
        *arg) {
        gdb_command_reply_status(s, -EINVAL);
        return false;
    }
    if (n >= GDB_TYPE_N) {
        gdb_command_reply(s, ""); /* not supported */
        return false;
    }
    *type = (enum gdb_type)n;
    if (*type >= GDB_TYPE_WRITE && (!*len || *addr + *len - 1 < *addr)) {
        gdb_command_reply_status(s, -EINVAL);
        return false;
    }
    return true;
}

static void command_insert(struct gdb_session *s, const char *arg)
{
    enum gdb_type type;
    uint64_t addr, len;

    if (take_breakpoint(s, arg, &type, &addr, &len))
        gdb_command_reply_status(s, gdb_session_set_breakpoint(s, type, addr, len));
}

static void command_remove(struct gdb_session *s, const char *arg)
{
    enum gdb_type type;
    uint64_t addr, len;

    if (!take_breakpoint(s, arg, &type, &addr, &len))
        return;
    gdb_session_clear_breakpoint(s, type, addr);
    gdb_command_reply_status(s, 0);
}

/* ---- running ---- */

/* One action of vCont: c, s, or with a signal, which a machine has no use for. False for what is not understood. */
static bool take_action(const char **text, enum gdb_action *action)
{
    bool with_signal = **text == 'C' || **text == 'S';
    uint64_t signal;

    if (gdb_command_take(text, "c") || gdb_command_take(text, "C"))
        *action = GDB_CONTINUE;
    else if (gdb_command_take(text, "s") || gdb_command_take(text, "S"))
        *action = GDB_STEP;
    else
        return false;
    return !with_signal || gdb_packet_number(text, &signal);
}

/* ";action:thread..." For each thread, the first action that names it counts. */
static void command_vcont(struct gdb_session *s, const char *arg)
{
    enum gdb_action action[VM_MAX_VCPUS] = {GDB_STAND};
    bool any = false;

    while (gdb_command_take(&arg, ";")) {
        enum gdb_action next;
        unsigned vcpu = VM_MAX_VCPUS;
        if (!take_action(&arg, &next) || (gdb_command_take(&arg, ":") && !gdb_command_take_thread(s, &arg, &vcpu)))
            break;
        for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++)
            if ((vcpu == VM_MAX_VCPUS || vcpu == i) && action[i] == GDB_STAND)
                action[i] = next;
        any = true;
    }
    if (*arg || !any)
        gdb_command_reply_status(s, -EINVAL);
    else
        gdb_session_resume(s, action);
}

/* The older c and s: a step is one vCPU's, and the others stand. */
static void command_go(struct gdb_session *s, const char *packet)
{
    enum gdb_action action[VM_MAX_VCPUS] = {GDB_STAND}, what;

    if (!take_action(&packet, &what) || *packet) { /* an address to go on at is not supported: there are registers */
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    unsigned one = s->stepped != VM_MAX_VCPUS ? s->stepped : s->stop.vcpu;
    for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++)
        if (i == one || (what == GDB_CONTINUE && s->stepped == VM_MAX_VCPUS))
            action[i] = what;
    gdb_session_resume(s, action);
}

static void command_detach(struct gdb_session *s, const char *arg)
{
    gdb_command_reply(s, "OK");
    s->over = true;
}

void gdb_command_kill(struct gdb_session *s)
{
    s->over = true;
    vm_end(s->vm, VM_END_QUIT, 0);
}

/* ---- threads ---- */

/* "Hg" and "Hc": whose registers, and who steps. */
static void command_thread(struct gdb_session *s, const char *arg)
{
    char which = *arg;
    unsigned vcpu;

    if (which != 'g' && which != 'c') {
        gdb_command_reply(s, "");
        return;
    }
    arg++;
    if (!gdb_command_take_thread(s, &arg, &vcpu) || *arg) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    if (which == 'c')
        s->stepped = vcpu;
    else if (vcpu != VM_MAX_VCPUS)
        s->selected = vcpu;
    gdb_command_reply_status(s, 0);
}

static void command_alive(struct gdb_session *s, const char *arg)
{
    unsigned vcpu;

    gdb_command_reply_status(s, gdb_command_take_thread(s, &arg, &vcpu) && !*arg ? 0 : -ESRCH);
}

static void set_no_ack(struct gdb_session *s, const char *arg)
{
    gdb_command_reply(s, "OK");
    s->no_ack = true;
}

static void command_why(struct gdb_session *s, const char *arg)
{
    gdb_session_tell_stop(s);
}

static void command_kill(struct gdb_session *s, const char *arg)
{
    gdb_command_kill(s);
}

static void command_vkill(struct gdb_session *s, const char *arg)
{
    gdb_command_reply(s, "OK");
    gdb_command_kill(s);
}

static void command_actions(struct gdb_session *s, const char *arg)
{
    gdb_command_reply(s, "vCont;c;C;s;S");
}

/* ---- all of them ---- */

/* By what a packet begins with; the first that fits counts. `whole`: nothing may follow. */
static const struct command {
    const char *name;
    bool whole;
    void (*run)(struct gdb_session *s, const char *arg);
} commands[] = {
    {"?", true, command_why},
    {"g", true, command_get_all},
    {"G", false, command_set_all},
    {"p", false, command_get},
    {"P", false, command_set},
    {"m", false, command_read},
    {"M", false, command_write},
    {"X", false, command_write_binary},
    {"Z", false, command_insert},
    {"z", false, command_remove},
    {"vCont?", true, command_actions},
    {"vCont", false, command_vcont},
    {"vKill;", false, command_vkill},
    {"QStartNoAckMode", true, set_no_ack},
    {"H", false, command_thread},
    {"T", false, command_alive},
    {"D", true, command_detach},
    {"k", true, command_kill},
    {"QStartNoAckMode", true, set_no_ack},
};

void gdb_command_run(struct gdb_session *s)
{
    const char *packet = s->in.data;

    if (*packet == 'c' || *packet == 'C' || *packet == 's' || *packet == 'S') {
        command_go(s, packet);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const char *arg = packet;
        if (!gdb_command_take(&arg, commands[i].name) || (commands[i].whole && *arg))
            continue;
        commands[i].run(s, arg);
        return;
    }
    if (!gdb_query_run(s, packet))
        gdb_command_reply(s, ""); /* not supported */
}
