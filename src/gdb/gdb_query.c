/* See gdb_query.h. */
#include "gdb/gdb_query.h"

#include <errno.h>
#include <stdio.h>

#include "gdb/gdb_command.h"
#include "gdb/gdb_target.h"

/* ---- threads ---- */

static void query_threads(struct gdb_session *s, const char *arg)
{
    gdb_packet_begin(&s->out);
    for (unsigned i = 0; i < s->vm->conf.n_vcpus; i++)
        gdb_packet_text(&s->out, "%s%x", i ? "," : "m", i + 1);
    gdb_session_send(s);
}

static void query_more_threads(struct gdb_session *s, const char *arg)
{
    gdb_command_reply(s, "l");
}

static void query_thread_text(struct gdb_session *s, const char *arg)
{
    static const char *const activities[] = {"running", "halted", "waiting for SIPI"};
    struct gdb_regs regs;
    unsigned vcpu;
    char text[64];

    if (!gdb_command_take_thread(s, &arg, &vcpu) || *arg || vcpu == VM_MAX_VCPUS) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    gdb_session_get_regs(s, vcpu, &regs);
    int n = snprintf(text, sizeof(text), "CPU %u, %s, CPL %u", vcpu, activities[regs.st.activity], x86_cpl(&regs.st));
    gdb_command_reply_hex(s, text, (size_t)n);
}

static void query_current(struct gdb_session *s, const char *arg)
{
    gdb_packet_begin(&s->out);
    gdb_packet_text(&s->out, "QC%x", s->stop.vcpu + 1);
    gdb_session_send(s);
}

/* ---- monitor ---- */

static void monitor_help(struct gdb_session *s, char *text, size_t size);

static void monitor_registers(struct gdb_session *s, char *text, size_t size)
{
    struct gdb_regs regs;

    gdb_session_get_regs(s, s->selected, &regs);
    x86_state_print(&regs.st, text, size - 1);
    strcat(text, "\n");
}

static void monitor_reset(struct gdb_session *s, char *text, size_t size)
{
    vm_reset(s->vm);
    snprintf(text, size, "the VM is reset; maintenance flush register-cache lets gdb see it\n");
}

static void monitor_quit(struct gdb_session *s, char *text, size_t size)
{
    gdb_command_kill(s);
}

static const struct monitor {
    const char *name, *help;
    void (*run)(struct gdb_session *s, char *text, size_t size);
} monitors[] = {
    {"help", "lists these commands", monitor_help},
    {"registers", "shows the thread's registers with segments and descriptor tables", monitor_registers},
    {"reset", "resets the VM, which then stands at its first instruction", monitor_reset},
    {"quit", "ends the VM", monitor_quit},
};

static void monitor_help(struct gdb_session *s, char *text, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < ARRAY_SIZE(monitors); i++)
        at += (size_t)snprintf(text + at, size - at, "%-10s %s\n", monitors[i].name, monitors[i].help);
}

static void query_monitor(struct gdb_session *s, const char *arg)
{
    char word[32] = "", text[4096] = "";
    size_t len = strlen(arg) / 2;

    if (len < sizeof(word) && !gdb_packet_bytes(arg, word, len)) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    size_t i = 0;
    while (i < ARRAY_SIZE(monitors) && strcmp(monitors[i].name, word) != 0)
        i++;
    if (i < ARRAY_SIZE(monitors))
        monitors[i].run(s, text, sizeof(text));
    else
        snprintf(text, sizeof(text), "no such command; monitor help lists what there is\n");
    if (*text)
        gdb_command_reply_hex(s, text, strlen(text));
    else
        gdb_command_reply(s, "OK");
}

/* ---- other queries ---- */

static void query_supported(struct gdb_session *s, const char *arg)
{
    s->tells_breakpoints = strstr(arg, "swbreak+") && strstr(arg, "hwbreak+");
    gdb_packet_begin(&s->out);
    gdb_packet_text(&s->out, "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+",
                    GDB_PACKET_MAX);
    gdb_session_send(s);
}

/* A piece of the target description: "offset,length". */
static void query_features(struct gdb_session *s, const char *arg)
{
    char xml[GDB_TARGET_XML_MAX];
    size_t size = gdb_target_xml(xml, sizeof(xml));
    uint64_t offset, len;

    if (!gdb_command_take_range(&arg, &offset, &len) || *arg || offset > size) {
        gdb_command_reply_status(s, -EINVAL);
        return;
    }
    size_t left = size - offset, n = len < left ? (size_t)len : left;
    if (n > GDB_PACKET_MAX / 2) /* each byte may take two */
        n = GDB_PACKET_MAX / 2;
    gdb_packet_begin(&s->out);
    gdb_packet_text(&s->out, "%c", n == left ? 'l' : 'm');
    gdb_packet_binary(&s->out, xml + offset, n);
    gdb_session_send(s);
}

/* The VM was there before the debugger: what only attached must not kill it when it leaves. */
static void query_attached(struct gdb_session *s, const char *arg)
{
    gdb_command_reply(s, "1");
}

/* ---- all of them ---- */

static const struct query {
    const char *name; /* with what separates it from what is asked for; without, nothing may follow */
    void (*run)(struct gdb_session *s, const char *arg);
} queries[] = {
    {"qSupported:", query_supported},
    {"qXfer:features:read:target.xml:", query_features},
    {"qAttached", query_attached},
    {"qC", query_current},
    {"qfThreadInfo", query_threads},
    {"qsThreadInfo", query_more_threads},
    {"qThreadExtraInfo,", query_thread_text},
    {"qRcmd,", query_monitor},
};

bool gdb_query_run(struct gdb_session *s, const char *packet)
{
    for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
        const char *name = queries[i].name, last = name[strlen(name) - 1];
        if (!gdb_command_take(&packet, name))
            continue;
        if (last != ':' && last != ',' && *packet)
            return false;
        queries[i].run(s, packet);
        return true;
    }
    return false;
}
