/* The kinds of attachments: what each makes of its specification, and tells of what it has done. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "console/agent.h"
#include "console/console.h"
#include "device/balloon_spec.h"
#include "device/share_spec.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "device/virtio_vsock.h"
#include "device/vport_spec.h"
#include "device/vsock_spec.h"
#include "machine/attach.h"
#include "machine/machine.h"
#include "net/mac.h"

/* A control command names attachments, and so do threads and messages. */
static int set_id(char id[ATTACH_ID_SIZE], const char *kind, const char *given, struct err *err)
{
    if (strlen(given) >= ATTACH_ID_SIZE)
        return err_set(err, -EINVAL, "%s: id='%.60s': accepted are up to %d characters", kind, given,
                       ATTACH_ID_SIZE - 1);
    snprintf(id, ATTACH_ID_SIZE, "%s", given);
    return 0;
}

/* ---- disk ---- */

static int parse_disk(const char *spec, void *opaque, char id[ATTACH_ID_SIZE], struct err *err)
{
    struct virtio_blk_conf *conf = opaque;
    int r = disk_spec_parse(&conf->spec, spec, err);

    return r < 0 ? r : set_id(id, "disk", conf->spec.id, err);
}

static void ask_pause(void *opaque)
{
    machine_want_pause(opaque, "a request to a disk failed, and is made again when the VM goes on");
}

static int prepare_disk(struct machine *m, void *opaque, struct err *err)
{
    struct virtio_blk_conf *conf = opaque;

    conf->ask_pause = ask_pause;
    conf->opaque = m;
    if (!conf->spec.queues)
        conf->spec.queues = m->vm.conf.n_vcpus;
    return 0;
}

static void figures_disk(struct device *dev, const struct attach_figures *out)
{
    static const char *const names[][3] = {
        [VIRTIO_BLK_READ] = {"read_operations", "read_bytes", "read_errors"},
        [VIRTIO_BLK_WRITE] = {"write_operations", "write_bytes", "write_errors"},
        [VIRTIO_BLK_FLUSH] = {"flush_operations", "flush_bytes", "flush_errors"},
        [VIRTIO_BLK_DISCARD] = {"discard_operations", "discard_bytes", "discard_errors"},
    };
    struct virtio_blk_stats stats;

    virtio_blk_stats(dev, &stats);
    out->number(out->opaque, "size", virtio_blk_size(dev));
    for (unsigned i = 0; i < VIRTIO_BLK_DIRECTIONS; i++) {
        out->number(out->opaque, names[i][0], stats.by[i].operations);
        if (i != VIRTIO_BLK_FLUSH)
            out->number(out->opaque, names[i][1], stats.by[i].bytes);
        out->number(out->opaque, names[i][2], stats.by[i].errors);
    }
    out->number(out->opaque, "throttled", stats.throttled);
    if (stats.watched)
        out->number(out->opaque, "host_available", stats.available);
    if (stats.scarce)
        out->text(out->opaque, "warning", "the host runs out of room for this disk");
}

const struct attach_kind attach_disk = {
    .name = "disk",
    .type = &virtio_blk_type,
    .conf_size = sizeof(struct virtio_blk_conf),
    .hot = true,
    .own_thread = true,
    .parse = parse_disk,
    .prepare = prepare_disk,
    .figures = figures_disk,
};

/* ---- network interface ---- */

struct net_attachment {
    struct virtio_net_conf conf;
    struct net_spec spec;
};

static int parse_net(const char *spec, void *opaque, char id[ATTACH_ID_SIZE], struct err *err)
{
    struct net_attachment *n = opaque;
    int r = net_spec_parse(spec, &n->spec, err);

    n->conf.spec = &n->spec;
    return r < 0 ? r : set_id(id, "net", n->spec.id, err);
}

/* What this VM has that no other has at the same time: net/mac.h. In `path` where it is the first disk's. */
static const char *identity(const struct machine *m, char path[PATH_MAX])
{
    if (m->name)
        return m->name;
    for (const struct attachment *a = m->attachments; a; a = a->next)
        if (a->kind == &attach_disk)
            return realpath(((const struct virtio_blk_conf *)a->conf)->spec.path, path);
    return NULL;
}

static const struct attachment *find_mac(const struct machine *m, const uint8_t mac[MAC_SIZE])
{
    for (const struct attachment *a = m->attachments; a; a = a->next)
        if (a->kind == &attach_net && memcmp(((const struct net_attachment *)a->conf)->conf.mac, mac, MAC_SIZE) == 0)
            return a;
    return NULL;
}

/* Its own address, unless the spec says one: the first of those derived that no interface of this VM has. */
static int prepare_net(struct machine *m, void *opaque, struct err *err)
{
    struct net_attachment *n = opaque;
    char path[PATH_MAX], text[MAC_TEXT_MAX];
    const char *vm = identity(m, path);
    const struct attachment *other;

    /* The backend is told too: a switch knows its ports by their addresses. */
    for (unsigned i = 0; !n->spec.has_mac; i++) {
        mac_derive(n->spec.mac, vm, i);
        n->spec.has_mac = !find_mac(m, n->spec.mac);
    }
    memcpy(n->conf.mac, n->spec.mac, MAC_SIZE);
    other = find_mac(m, n->conf.mac);
    if (!other)
        return 0;
    mac_format(n->conf.mac, text);
    return err_set(err, -EEXIST, "net: mac=%s: '%s' has that address already; accepted is one that no other has", text,
                   other->id);
}

static void figures_net(struct device *dev, const struct attach_figures *out)
{
    struct virtio *v = virtio_pci_of(dev);
    struct virtio_net_stats stats;
    char text[MAC_TEXT_MAX];
    uint8_t mac[MAC_SIZE];

    virtio_net_mac(v, mac);
    mac_format(mac, text);
    out->text(out->opaque, "mac", text);
    out->text(out->opaque, "link", virtio_net_link(v) ? "up" : "down");
    virtio_net_stats(v, &stats);
    out->number(out->opaque, "tx_frames", stats.tx_frames);
    out->number(out->opaque, "tx_bytes", stats.tx_bytes);
    out->number(out->opaque, "tx_dropped", stats.tx_dropped);
    out->number(out->opaque, "rx_frames", stats.rx_frames);
    out->number(out->opaque, "rx_bytes", stats.rx_bytes);
    out->number(out->opaque, "rx_dropped", stats.rx_dropped);
}

const struct attach_kind attach_net = {
    .name = "net",
    .type = &virtio_net_type,
    .conf_size = sizeof(struct net_attachment),
    .hot = true,
    .own_thread = true,
    .parse = parse_net,
    .prepare = prepare_net,
    .figures = figures_net,
};

/* ---- shared directory ---- */

static int parse_share(const char *spec, void *conf, char id[ATTACH_ID_SIZE], struct err *err)
{
    return share_spec_parse(spec, conf, id, err);
}

static void figures_share(struct device *dev, const struct attach_figures *out)
{
    struct virtio_fs_info info;

    virtio_fs_get(virtio_pci_of(dev), &info);
    out->text(out->opaque, "back_end", info.gone ? "gone" : "there");
    out->number(out->opaque, "requests", info.requests);
    out->number(out->opaque, "refused", info.refused);
    out->number(out->opaque, "failed", info.failed);
}

const struct attach_kind attach_share = {
    .name = "share",
    .type = &virtio_fs_type,
    .conf_size = sizeof(struct virtio_fs_conf),
    .hot = true,
    .own_thread = true, /* its end may wait for the back end */
    .parse = parse_share,
    .figures = figures_share,
};

/* ---- vsock ---- */

struct vsock_attachment {
    struct virtio_vsock_conf conf;
    struct vsock_spec spec;
};

static int parse_vsock(const char *spec, void *opaque, char id[ATTACH_ID_SIZE], struct err *err)
{
    struct vsock_attachment *s = opaque;
    int r = vsock_spec_parse(&s->spec, spec, err);

    s->conf = (struct virtio_vsock_conf){.cid = s->spec.cid, .path = s->spec.path};
    return r < 0 ? r : set_id(id, "vsock", s->spec.id, err);
}

const struct attach_kind attach_vsock = {
    .name = "vsock",
    .type = &virtio_vsock_type,
    .conf_size = sizeof(struct vsock_attachment),
    .hot = true,
    .parse = parse_vsock,
};

/* ---- console ports ---- */

struct port_attachment {
    struct virtio_console_conf conf;
    struct virtio_console_port ports[VIRTIO_CONSOLE_PORTS];
    struct vport_spec specs[VIRTIO_CONSOLE_PORTS];
    struct console_hooks hooks[VIRTIO_CONSOLE_PORTS];
    struct machine *m;
};

/* What a port's other end tells, on the device's thread. */
static void port_notice(void *opaque, const char *line)
{
    log_notice("port: %s", line);
}

/* As with the serial console: a guest that nobody can see any more is no use. */
static void console_fail(void *opaque, const char *reason)
{
    struct machine *m = opaque;

    log_error("port: %s", reason);
    vm_end(&m->vm, VM_END_FAIL, 0);
}

static void port_fail(void *opaque, const char *reason)
{
    log_error("port: %s", reason);
}

static void port_quit(void *opaque)
{
    struct machine *m = opaque;

    vm_end(&m->vm, VM_END_QUIT, 0);
}

static void port_power(void *opaque)
{
    machine_press_power(opaque);
}

static void save_wanted(void *opaque)
{
    struct machine *m = opaque;

    if (m->saver.save)
        m->saver.save(m->saver.opaque);
}

/* A port's keys come on its device's thread. */
static void port_save(void *opaque)
{
    struct machine *m = opaque;

    if (loop_post(m->vm.loop, save_wanted, m) < 0)
        log_error("port: the state is not saved: out of memory");
}

static int open_agent(struct machine *m, struct chardev **dev, struct loop *loop, struct err *err)
{
    if (m->agent)
        return err_set(err, -EEXIST, "port: there is an agent's port already; accepted is one");
    int r = agent_open(&m->agent, loop, m->vm.loop, err);

    *dev = r ? NULL : agent_chardev(m->agent);
    return r;
}

static int open_backend(void *opaque, struct chardev **dev, const char *backend, struct loop *loop, struct err *err)
{
    struct port_attachment *p = opaque;
    unsigned i = 0;

    while (i + 1 < p->conf.n_ports && p->ports[i].backend != backend)
        i++;
    p->hooks[i] = (struct console_hooks){.quit = port_quit,
                                         .power = port_power,
                                         .save = port_save,
                                         .fail = p->ports[i].is_console ? console_fail : port_fail,
                                         .notice = port_notice,
                                         .opaque = p->m};
    if (strcmp(backend, VPORT_AGENT) == 0)
        return open_agent(p->m, dev, loop, err);
    return console_open(dev, backend, loop, &p->hooks[i], err);
}

static int parse_port(const char *spec, void *opaque, char id[ATTACH_ID_SIZE], struct err *err)
{
    struct port_attachment *p = opaque;
    unsigned n = p->conf.n_ports;

    if (n == VIRTIO_CONSOLE_PORTS)
        return err_set(err, -E2BIG, "port '%.60s': accepted are up to %d of them", spec, VIRTIO_CONSOLE_PORTS);
    int r = vport_spec_parse(&p->specs[n], spec, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < n; i++)
        if (*p->specs[n].name && strcmp(p->specs[i].name, p->specs[n].name) == 0)
            return err_set(err, -EEXIST, "port: name='%.60s': there is one of that name already", p->specs[n].name);
    p->ports[n] = (struct virtio_console_port){
        .name = p->specs[n].name, .backend = p->specs[n].backend, .is_console = p->specs[n].is_console};
    p->conf =
        (struct virtio_console_conf){.ports = p->ports, .n_ports = n + 1, .open_backend = open_backend, .opaque = p};
    return 0;
}

static int prepare_port(struct machine *m, void *opaque, struct err *err)
{
    struct port_attachment *p = opaque;

    p->m = m;
    return 0;
}

const struct attach_kind attach_port = {
    .name = "port",
    .type = &virtio_console_type,
    .conf_size = sizeof(struct port_attachment),
    .gathers = true,
    .parse = parse_port,
    .prepare = prepare_port,
};

/* ---- balloon ---- */

static int parse_balloon(const char *spec, void *conf, char id[ATTACH_ID_SIZE], struct err *err)
{
    return balloon_spec_parse(spec, conf, id, err);
}

static int prepare_balloon(struct machine *m, void *opaque, struct err *err)
{
    for (const struct attachment *a = m->attachments; a; a = a->next)
        if (a->kind == &attach_balloon)
            return err_set(err, -EEXIST, "balloon: '%s' is there already; accepted is one", a->id);
    return 0;
}

static void figures_balloon(struct device *dev, const struct attach_figures *out)
{
    struct virtio_balloon_info info;

    virtio_balloon_get(virtio_pci_of(dev), &info);
    out->number(out->opaque, "target", info.target);
    out->number(out->opaque, "actual", info.actual);
    out->number(out->opaque, "inflated_bytes", info.inflated_bytes);
    out->number(out->opaque, "deflated_bytes", info.deflated_bytes);
    out->number(out->opaque, "reported_bytes", info.reported_bytes);
    out->number(out->opaque, "refused_pages", info.refused_pages);
    if (info.stats_age_ns >= 0)
        out->number(out->opaque, "guest_age_ns", (uint64_t)info.stats_age_ns);
    for (unsigned i = 0; i < VIRTIO_BALLOON_N_STATS; i++) {
        char key[64];
        snprintf(key, sizeof(key), "guest_%s", virtio_balloon_stat_name(i));
        if (info.stats_there & 1u << i)
            out->number(out->opaque, key, info.stats[i]);
    }
}

const struct attach_kind attach_balloon = {
    .name = "balloon",
    .type = &virtio_balloon_type,
    .conf_size = sizeof(struct virtio_balloon_conf),
    .parse = parse_balloon,
    .prepare = prepare_balloon,
    .figures = figures_balloon,
};

/* ---- random numbers ---- */

static int parse_rng(const char *spec, void *conf, char id[ATTACH_ID_SIZE], struct err *err)
{
    return virtio_rng_parse(spec, conf, id, err);
}

const struct attach_kind attach_rng = {
    .name = "rng",
    .type = &virtio_rng_type,
    .conf_size = sizeof(struct virtio_rng_conf),
    .hot = true,
    .parse = parse_rng,
};
