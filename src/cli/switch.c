/*
 * `vireo switch`: a learning switch between the VMs of this host, in the foreground, until SIGTERM or SIGINT; or what a running one has to tell.
 *
 * Threads: one, that of the loop.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/number.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/switch_options.h"
#include "net/switch_server.h"

#define MOST_RULES  (4 * OPTION_LIST_MAX)
#define MOST_STORM  UINT64_C(1000000000)
#define PATIENCE_MS 5000
#define MOST_STATUS (64 * MIB)

struct switch_command {
    struct switch_options options;
    struct switch_server_conf conf;
    char path[SWITCH_WIRE_PATH_MAX];
    struct switch_rule rules[MOST_RULES];
    struct net_spec uplinks[SWITCH_UPLINKS_MOST];
    struct loop *loop;
    struct loop_fd signals;
};

/* ---- from options to a configuration ---- */

/* "PORT" or "PORT=VALUE" begins a rule; *value is behind the equals sign. */
static int add_rule(struct switch_command *c, const char *option, const char *text, bool any, const char **value,
                    struct switch_rule **out, struct err *err)
{
    size_t len = value ? strcspn(text, "=") : strlen(text);
    struct switch_rule *rule = &c->rules[c->conf.n_rules];

    *rule = (struct switch_rule){0};
    if (len < sizeof(rule->port))
        memcpy(rule->port, text, len);
    bool all = any && strcmp(rule->port, "*") == 0;
    if ((!all && !switch_wire_name_ok(rule->port)) || (value && (!text[len] || !text[len + 1])))
        return err_set(err, -EINVAL, "--%s '%.100s': accepted is %s, with a port's name%s", option, text,
                       value ? "PORT=VALUE" : "PORT", any ? " or *" : "");
    if (value)
        *value = text + len + 1;
    c->conf.n_rules++;
    *out = rule;
    return 0;
}

static int add_vlan(struct switch_command *c, const char *text, struct err *err)
{
    const char *value, *p;
    struct switch_rule *rule;
    uint64_t vlan;
    int r = add_rule(c, "vlan", text, true, &value, &rule, err);

    if (r < 0)
        return r;
    p = value;
    rule->trunk = strcmp(value, "trunk") == 0;
    rule->vlan = SWITCH_VLAN_DEFAULT;
    if (rule->trunk)
        return 0;
    if (!number_take(&p, &vlan) || *p || vlan < 1 || vlan > SWITCH_VLAN_MOST)
        return err_set(err, -EINVAL, "--vlan '%.100s': accepted is PORT=N with 1 to %d, or PORT=trunk", text,
                       SWITCH_VLAN_MOST);
    rule->vlan = (uint16_t)vlan;
    return 0;
}

static int add_rules(struct switch_command *c, struct err *err)
{
    const struct switch_options *o = &c->options;
    struct switch_rule *rule;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < o->isolate.n; i++) {
        r = add_rule(c, "isolate", o->isolate.items[i], true, NULL, &rule, err);
        if (r == 0)
            rule->isolated = true;
    }
    for (unsigned i = 0; r == 0 && i < o->own_mac.n; i++) {
        r = add_rule(c, "own-mac", o->own_mac.items[i], true, NULL, &rule, err);
        if (r == 0)
            rule->own_mac = true;
    }
    for (unsigned i = 0; r == 0 && i < o->vlan.n; i++)
        r = add_vlan(c, o->vlan.items[i], err);
    for (unsigned i = 0; r == 0 && i < o->capture.n; i++) {
        const char *path = NULL;
        r = add_rule(c, "capture", o->capture.items[i], false, &path, &rule, err);
        if (r == 0)
            rule->capture = path;
    }
    return r;
}

static int add_uplinks(struct switch_command *c, struct err *err)
{
    const struct option_list *list = &c->options.uplink;

    if (list->n > SWITCH_UPLINKS_MOST)
        return err_set(err, -EINVAL, "--uplink: accepted are up to %d of them", SWITCH_UPLINKS_MOST);
    for (unsigned i = 0; i < list->n; i++) {
        int r = net_spec_parse(list->items[i], &c->uplinks[i], err);
        if (r < 0) {
            err_prefix(err, "--uplink '%.100s'", list->items[i]);
            return r;
        }
    }
    c->conf.uplinks = c->uplinks;
    c->conf.n_uplinks = list->n;
    return 0;
}

/* The name, and where the socket is. */
static int find_path(struct switch_command *c, struct err *err)
{
    const struct option_list *words = &c->options.words;
    const char *name = words->n ? words->items[0] : NULL;

    if (words->n != 1 || (!strchr(name, '/') && !switch_wire_name_ok(name)))
        return err_set(
            err, -EINVAL,
            "switch '%.60s': accepted is one name, of up to %d letters, digits and '-_.', or a path with a slash",
            words->n > 1 ? words->items[1]
            : words->n   ? name
                         : "",
            SWITCH_WIRE_NAME_MAX - 1);
    c->conf.name = name;
    c->conf.path = c->path;
    const char *at = c->options.socket;
    if (!at)
        return switch_wire_path(name, !c->options.status, c->path, err);
    if (!*at || strlen(at) >= sizeof(c->path))
        return err_set(err, -EINVAL, "--socket '%.120s': accepted is a path of up to %zu bytes", at,
                       sizeof(c->path) - 1);
    memcpy(c->path, at, strlen(at) + 1);
    return 0;
}

static int configure(struct switch_command *c, struct err *err)
{
    const char *p = c->options.storm;
    int r = find_path(c, err);

    if (r < 0)
        return r;
    if (!number_take(&p, &c->conf.storm) || *p || c->conf.storm > MOST_STORM)
        return err_set(err, -EINVAL, "--storm '%.100s': accepted is a number of frames a second, or 0 for any number",
                       c->options.storm);
    c->conf.mac_age_ns = c->options.mac_age;
    c->conf.rules = c->rules;
    r = add_rules(c, err);
    return r < 0 ? r : add_uplinks(c, err);
}

/* ---- the switch ---- */

static void on_signal(void *opaque, uint32_t events)
{
    struct switch_command *c = opaque;

    loop_stop(c->loop);
}

/* SIGHUP too, but where whoever started the switch ignores it (nohup). */
static int watch_signals(struct switch_command *c, struct err *err)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action;
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(ending); i++)
        if (sigaction(ending[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&set, ending[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    c->signals = (struct loop_fd){.fn = on_signal, .opaque = c};
    c->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->signals.fd < 0)
        return err_set(err, -errno, "signals: %s", strerror(errno));
    int r = loop_fd_add(c->loop, &c->signals, EPOLLIN);
    if (r < 0) {
        close(c->signals.fd);
        return err_set(err, r, "signals: %s", strerror(-r));
    }
    return 0;
}

static int serve(struct switch_command *c, struct err *err)
{
    struct switch_server *server;
    int r = loop_open(&c->loop, err);

    if (r < 0)
        return r;
    r = watch_signals(c, err);
    if (r < 0)
        goto close_loop;
    r = switch_server_open(&server, &c->conf, c->loop, err);
    if (r < 0) {
        err_prefix(err, "switch '%.60s'", c->conf.name);
        goto close_signals;
    }
    log_notice("switch %s listens on %s", c->conf.name, c->path);
    loop_run(c->loop);
    switch_server_close(server);

close_signals:
    loop_fd_remove(c->loop, &c->signals);
    close(c->signals.fd);
close_loop:
    loop_close(c->loop);
    return r;
}

/* ---- its status ---- */

static int print_memory(int fd, uint64_t len, struct err *err)
{
    if (len == 0 || len > MOST_STATUS)
        return err_set(err, -EPROTO, "its answer makes no sense");
    char *text = switch_wire_map(fd, len, err);
    if (!text)
        return -EPROTO;
    fwrite(text, 1, len, stdout);
    putchar('\n');
    munmap(text, len);
    return 0;
}

static int ask_status(int fd, struct err *err)
{
    const struct switch_wire_hello hello = {
        .magic = SWITCH_WIRE_MAGIC, .version = SWITCH_WIRE_VERSION, .kind = SWITCH_WIRE_STATUS};
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    uint8_t message[SWITCH_WIRE_MOST];
    struct switch_wire_welcome w;
    int memory, r = switch_wire_send(fd, &hello, sizeof(hello), -1);

    if (r < 0)
        return err_set(err, r, "%s", strerror(-r));
    if (poll(&pfd, 1, PATIENCE_MS) <= 0)
        return err_set(err, -EAGAIN, "it does not answer");
    ssize_t n = switch_wire_receive(fd, message, sizeof(message), &memory);
    if (n <= 0)
        return err_set(err, -EAGAIN, "it hung up");
    r = switch_wire_take_welcome(message, (size_t)n, &w, err);
    if (r == 0)
        r = memory < 0 ? err_set(err, -EPROTO, "its answer makes no sense") : print_memory(memory, w.length, err);
    if (memory >= 0)
        close(memory);
    return r;
}

static int show_status(struct switch_command *c, struct err *err)
{
    int fd = switch_wire_connect(c->path);

    if (fd < 0)
        return err_set(err, fd, "there is no switch '%s' that listens on '%s': %s", c->conf.name, c->path,
                       strerror(-fd));
    int r = ask_status(fd, err);
    if (r < 0)
        err_prefix(err, "switch '%s'", c->conf.name);
    close(fd);
    return r;
}

int command_switch(int argc, char **argv)
{
    struct switch_command *c = calloc(1, sizeof(*c));
    struct err err;
    bool help;

    if (!c)
        return command_fail(err_set(&err, -ENOMEM, "out of memory"), &err);
    int r = option_parse(&switch_option_table, argc, argv, &c->options, &help, &err);
    if (r == 0 && help) {
        help_command(stdout, "switch");
        free(c);
        return STATUS_OK;
    }
    if (r == 0)
        r = configure(c, &err);
    if (r == 0)
        r = c->options.status ? show_status(c, &err) : serve(c, &err);
    free(c);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
