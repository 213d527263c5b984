#include "control/control_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/number.h"
#include "control/backup_command.h"
#include "control/save.h"
#include "control/snapshot.h"
#include "control/stats.h"
#include "device/virtio_balloon.h"
#include "device/virtio_blk.h"
#include "device/virtio_net.h"

#define CONTROL(name, least, most, syntax, help) static int command_##name(struct control_call *call, struct err *err);
#include "control/commands.def"
#undef CONTROL

static const struct command {
    const char *name;
    unsigned least, most;
    const char *syntax, *help;
    int (*run)(struct control_call *call, struct err *err);
} commands[] = {
#define CONTROL(name, least, most, syntax, help) {#name, least, most, syntax, help, command_##name},
#include "control/commands.def"
#undef CONTROL
};

static int command_help(struct control_call *call, struct err *err)
{
    char text[128];

    call->result = json_object();
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        snprintf(text, sizeof(text), "%s%s%s", commands[i].name, *commands[i].syntax ? " " : "", commands[i].syntax);
        json_object_set_new(call->result, text, json_string(commands[i].help));
    }
    return 0;
}

/* Ids of the disks whose file systems run out of room. */
static json_t *scarce_disks(const struct machine *m)
{
    json_t *ids = json_array();
    struct virtio_blk_stats stats;

    for (const struct attachment *a = m->attachments; a; a = a->next) {
        if (a->kind != &attach_disk)
            continue;
        virtio_blk_stats(a->dev, &stats);
        if (stats.scarce)
            json_array_append_new(ids, json_string(a->id));
    }
    return ids;
}

static int command_status(struct control_call *call, struct err *err)
{
    const struct machine *m = call->machine;

    call->result =
        json_pack("{s:s, s:s, s:i, s:I}", "state", m->paused ? "paused" : "running", "engine", m->vm.conf.engine->name,
                  "cpus", (int)m->vm.conf.n_vcpus, "ram", (json_int_t)m->vm.conf.ram_size);
    if (m->paused)
        json_object_set_new(call->result, "reason", json_string(m->pause_reason));
    json_t *scarce = scarce_disks(m);
    if (json_array_size(scarce))
        json_object_set_new(call->result, "low_on_space", json_incref(scarce));
    json_decref(scarce);
    if (m->backup_job)
        json_object_set_new(call->result, "backup", backup_command_status(m));
    return 0;
}

static int command_pause(struct control_call *call, struct err *err)
{
    machine_pause(call->machine, "by the control socket");
    return 0;
}

static int command_resume(struct control_call *call, struct err *err)
{
    machine_resume(call->machine);
    return 0;
}

static int command_power(struct control_call *call, struct err *err)
{
    machine_press_power(call->machine);
    return 0;
}

static int command_reset(struct control_call *call, struct err *err)
{
    machine_resume(call->machine);
    vm_reset(&call->machine->vm);
    return 0;
}

static int command_save(struct control_call *call, struct err *err)
{
    return save_command(call, err);
}

static int command_quit(struct control_call *call, struct err *err)
{
    vm_end(&call->machine->vm, VM_END_QUIT, 0);
    return 0;
}

/* vCPUs tell their counts when they leave the engine. */
static int command_stats(struct control_call *call, struct err *err)
{
    vm_pause(&call->machine->vm);
    call->result = stats_get(call->machine);
    vm_resume(&call->machine->vm);
    return 0;
}

static int command_list(struct control_call *call, struct err *err)
{
    call->result = json_array();
    for (struct attachment *a = call->machine->attachments; a; a = a->next)
        json_array_append_new(call->result, stats_attachment(a));
    return 0;
}

static int command_attach(struct control_call *call, struct err *err)
{
    struct attachment *a;
    int r = attach_open(call->machine, call->arguments[0], &call->arguments[1], 1, &a, err);

    if (r == 0)
        call->result = json_pack("{s:s, s:i}", "id", a->id, "slot", (int)a->slot);
    return r;
}

static int command_detach(struct control_call *call, struct err *err)
{
    int r = attach_ask_close(call->machine, call->arguments[0], err);

    if (r == 0)
        snprintf(call->detaching, sizeof(call->detaching), "%s", call->arguments[0]);
    return r;
}

/* The attachment called `id`, if it is of that kind; or NULL and one line. */
static struct attachment *find(struct control_call *call, const char *id, const struct attach_kind *kind,
                               struct err *err)
{
    struct attachment *a = attach_find(call->machine, id, err);

    if (a && a->kind != kind) {
        err_set(err, -EINVAL, "'%s' is of the kind %s: accepted is a %s", id, a->kind->name, kind->name);
        return NULL;
    }
    return a;
}

static int command_balloon(struct control_call *call, struct err *err)
{
    struct attachment *a = call->machine->attachments;
    uint64_t bytes;

    while (a && a->kind != &attach_balloon)
        a = a->next;
    if (!a)
        return err_set(err, -ENOENT, "the VM has no balloon: it was started with --bare");
    if (call->n == 0) {
        call->result = stats_attachment(a);
        return 0;
    }
    if (!number_size(call->arguments[0], &bytes) || bytes > call->machine->vm.conf.ram_size)
        return err_set(err, -EINVAL,
                       "balloon: '%.60s': accepted is a size from 0 to the guest's memory of %" PRIu64
                       " bytes, also with a suffix K, M or G",
                       call->arguments[0], call->machine->vm.conf.ram_size);
    virtio_balloon_set_target(virtio_pci_of(a->dev), bytes);
    return 0;
}

static int command_resize(struct control_call *call, struct err *err)
{
    struct attachment *a = find(call, call->arguments[0], &attach_disk, err);
    uint64_t bytes;

    if (!a)
        return -EINVAL;
    if (!number_size(call->arguments[1], &bytes) || !bytes || bytes % DISK_BLOCK_SIZE)
        return err_set(
            err, -EINVAL,
            "resize: '%.60s': accepted is a size in bytes, a multiple of %d, also with a suffix K, M, G or T",
            call->arguments[1], DISK_BLOCK_SIZE);
    if (bytes < virtio_blk_size(a->dev))
        return err_set(err, -EINVAL,
                       "resize: '%.60s': accepted are the disk's %llu bytes and more: a guest's disk only grows",
                       call->arguments[1], (unsigned long long)virtio_blk_size(a->dev));
    return virtio_blk_resize(a->dev, bytes, err);
}

static int command_link(struct control_call *call, struct err *err)
{
    struct attachment *a = find(call, call->arguments[0], &attach_net, err);
    bool up = strcmp(call->arguments[1], "up") == 0;

    if (!a)
        return -EINVAL;
    if (!up && strcmp(call->arguments[1], "down") != 0)
        return err_set(err, -EINVAL, "link: '%.60s': accepted is up or down", call->arguments[1]);
    virtio_net_set_link(virtio_pci_of(a->dev), up);
    return 0;
}

static int command_backup(struct control_call *call, struct err *err)
{
    return backup_command(call, err);
}

static int command_snapshot(struct control_call *call, struct err *err)
{
    return snapshot_command(call, err);
}

static int unknown(const char *name, struct err *err)
{
    char list[384] = "";

    for (size_t i = 0, at = 0; i < ARRAY_SIZE(commands) && at < sizeof(list); i++)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", commands[i].name);
    return err_set(err, -EINVAL, "'%.60s' is no command; accepted are %s", name, list);
}

int control_command_run(const char *name, struct control_call *call, struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *c = &commands[i];
        if (strcmp(c->name, name) != 0)
            continue;
        if (call->n < c->least || call->n > c->most)
            return err_set(err, -EINVAL, "%s with %u arguments: accepted is %s%s%s", name, call->n, name,
                           *c->syntax ? " " : "", *c->syntax ? c->syntax : " alone");
        return c->run(call, err);
    }
    return unknown(name, err);
}
