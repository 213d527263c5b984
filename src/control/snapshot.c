#include "control/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "console/agent.h"
#include "control/backup_command.h"
#include "device/virtio_blk.h"

#define MAX_DISKS 32 /* there are no more slots */

struct disks {
    struct attachment *items[MAX_DISKS];
    unsigned n;
};

/* ---- which disks ---- */

/* The disk called `id`, or all that can have snapshots. */
static int choose(struct machine *m, const char *id, struct disks *disks, struct err *err)
{
    *disks = (struct disks){0};
    if (id) {
        struct attachment *a = attach_find(m, id, err);
        if (!a)
            return -ENOENT;
        if (a->kind != &attach_disk || !virtio_blk_has_snapshots(a->dev))
            return err_set(err, -ENOTSUP,
                           "'%s' has no snapshots: accepted is a disk that is written to, of format qcow2", id);
        disks->items[disks->n++] = a;
        return 0;
    }
    for (struct attachment *a = m->attachments; a; a = a->next)
        if (a->kind == &attach_disk && virtio_blk_has_snapshots(a->dev) && disks->n < MAX_DISKS)
            disks->items[disks->n++] = a;
    return disks->n ? 0
                    : err_set(err, -ENOENT,
                              "no disk of the VM has snapshots: that takes one that is written to, of "
                              "format qcow2");
}

static json_t *text_of(const char *text)
{
    json_t *json = json_string(text);

    return json ? json : json_string("?"); /* no UTF-8 */
}

static json_t *ids_of(const struct disks *disks)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < disks->n; i++)
        json_array_append_new(array, json_string(disks->items[i]->id));
    return array;
}

/* ---- create ---- */

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* No vCPU runs from the first to the last, so that none can have seen one disk's answer and not another's. */
static int create(struct machine *m, const struct disks *disks, const char *name, struct err *err)
{
    int64_t now = now_ns();
    struct err why;
    unsigned i = 0;
    int r = 0;

    vm_pause(&m->vm);
    for (; r == 0 && i < disks->n; i++)
        r = virtio_blk_snapshot_create(disks->items[i]->dev, name, now, err);
    for (unsigned k = 0; r && k + 1 < i; k++)
        if (virtio_blk_snapshot_remove(disks->items[k]->dev, name, &why))
            err_prefix(err, "'%s' has the snapshot and cannot lose it", disks->items[k]->id);
    vm_resume(&m->vm);
    return r;
}

/* A snapshot while the guest's file systems are frozen. */
struct snapshot_job {
    struct machine *m;
    char *name;
    char *id; /* or NULL: all disks */
    struct control_later later;
    int result;
    struct err err;
    json_t *done; /* of a snapshot that was made */
};

static void free_job(struct snapshot_job *job)
{
    job->m->snapshot_job = NULL;
    json_decref(job->done);
    free(job->name);
    free(job->id);
    free(job);
}

static void answer(struct snapshot_job *job)
{
    struct control_later later = job->later;
    json_t *done = job->done;
    struct err err = job->err;
    int result = job->result;

    job->done = NULL;
    free_job(job);
    later.answer(later.opaque, later.ticket, done, result ? err.msg : NULL);
}

static json_t *made(const struct disks *disks, const struct agent_answer *frozen)
{
    json_t *json = json_pack("{s:o, s:s}", "disks", ids_of(disks), "consistency",
                             frozen && frozen->result == 0 ? "file systems frozen" : "crash-consistent");

    if (!frozen)
        json_object_set_new(json, "reason", json_string("the VM has no agent's port"));
    else if (frozen->result == -EREMOTEIO)
        json_object_set_new(json, "reason", text_of(frozen->error));
    else if (frozen->result)
        json_object_set_new(json, "reason",
                            json_string(frozen->result == -ETIMEDOUT ? "the guest's agent did not freeze in time"
                                                                     : "no agent answers in the guest"));
    else
        json_object_set_new(json, "frozen", json_integer(frozen->count));
    return json;
}

static void on_thawed(void *opaque, const struct agent_answer *thawed)
{
    struct snapshot_job *job = opaque;

    if (job->done && thawed->result)
        json_object_set_new(job->done, "thaw", json_string("the agent did not say that it has thawed"));
    answer(job);
}

static void on_frozen(void *opaque, const struct agent_answer *frozen)
{
    struct snapshot_job *job = opaque;
    struct disks disks;

    job->result = choose(job->m, job->id, &disks, &job->err); /* some may have gone meanwhile */
    if (job->result == 0)
        job->result = create(job->m, &disks, job->name, &job->err);
    if (job->result == 0)
        job->done = made(&disks, frozen);
    /* Also after an error: a part may be frozen. Who has not even answered has frozen nothing. */
    bool asked = frozen->result != -ENOTCONN && frozen->result != -ENODATA;
    if (!asked || agent_ask(job->m->agent, AGENT_THAW, on_thawed, job))
        answer(job);
}

static int start_job(struct control_call *call, const char *name, const char *id, struct err *err)
{
    struct machine *m = call->machine;
    struct snapshot_job *job = m->snapshot_job ? NULL : calloc(1, sizeof(*job));

    if (m->snapshot_job)
        return err_set(err, -EBUSY, "another snapshot is being made");
    if (!job)
        return err_set(err, -ENOMEM, "out of memory");
    *job = (struct snapshot_job){.m = m, .name = strdup(name), .id = id ? strdup(id) : NULL, .later = call->later};
    m->snapshot_job = job;
    int r = job->name && (job->id || !id) ? agent_ask(m->agent, AGENT_FREEZE, on_frozen, job) : -ENOMEM;
    if (r) {
        free_job(job);
        return err_set(err, r, "the guest's agent: %s", strerror(-r));
    }
    call->comes_later = true;
    return 0;
}

void snapshot_abandon(struct machine *m)
{
    if (!m->snapshot_job)
        return;
    agent_forget(m->agent);
    free_job(m->snapshot_job);
}

/* A guest whose vCPUs stand still answers nobody. */
static int command_create(struct control_call *call, const struct disks *disks, const char *name, const char *id,
                          struct err *err)
{
    if (call->machine->agent && !call->machine->paused)
        return start_job(call, name, id, err);
    int r = create(call->machine, disks, name, err);
    if (r == 0)
        call->result = made(disks, NULL);
    if (r == 0 && call->machine->paused)
        json_object_set_new(call->result, "reason", json_string("the VM is paused"));
    return r;
}

/* ---- the others ---- */

/* 0 when each of the disks has it; otherwise the line of the first that has not. */
static int all_have(const struct disks *disks, const char *name, struct err *err)
{
    char names[256];
    struct disk_snapshots list;

    for (unsigned i = 0; i < disks->n; i++) {
        int r = virtio_blk_snapshot_list(disks->items[i]->dev, &list, err);
        bool found = false;
        size_t at = 0;
        if (r)
            return r;
        strcpy(names, "it has none");
        for (size_t k = 0; k < list.n; k++) {
            const struct disk_snapshot *s = &list.items[k];
            found |= strcmp(s->name, name) == 0 || strcmp(s->id, name) == 0;
            if (at < sizeof(names))
                at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%.60s", k ? ", " : "accepted are ", s->name);
        }
        free(list.items);
        if (!found)
            return err_set(err, -ENOENT, "'%s': no snapshot is called '%.60s'; %s", disks->items[i]->id, name, names);
    }
    return 0;
}

static void reset_over(void *opaque)
{
    struct machine *m = opaque;

    vm_resume(&m->vm);
}

/* The vCPUs stand until the machine's reset, which is carried out on the loop, is over. */
static int command_revert(struct control_call *call, const struct disks *disks, const char *name, struct err *err)
{
    struct machine *m = call->machine;
    unsigned n = 0;
    int r = all_have(disks, name, err);

    if (r)
        return r;
    vm_pause(&m->vm);
    for (; r == 0 && n < disks->n; n++)
        r = virtio_blk_snapshot_revert(disks->items[n]->dev, name, err);
    if (r && n > 1)
        err_prefix(err, "%u of %u disks have gone back", n - 1, disks->n);
    if (r && n == 1) {
        vm_resume(&m->vm);
        return r;
    }
    vm_reset(&m->vm);
    if (loop_post(m->vm.loop, reset_over, m))
        vm_resume(&m->vm);
    if (r == 0)
        call->result = json_pack("{s:o, s:s}", "disks", ids_of(disks), "machine", "reset");
    return r;
}

static int command_delete(struct control_call *call, const struct disks *disks, const char *name, struct err *err)
{
    int r = all_have(disks, name, err);

    for (unsigned i = 0; r == 0 && i < disks->n; i++)
        r = virtio_blk_snapshot_remove(disks->items[i]->dev, name, err);
    if (r == 0)
        call->result = json_pack("{s:o}", "disks", ids_of(disks));
    return r;
}

static json_t *list_one(const struct disk_snapshots *list)
{
    json_t *array = json_array();

    for (size_t i = 0; i < list->n; i++) {
        const struct disk_snapshot *s = &list->items[i];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o, s:f, s:I, s:I}", "id", text_of(s->id), "name", text_of(s->name), "parent",
                             *s->parent ? text_of(s->parent) : json_null(), "time", (double)s->time_ns / NS_PER_SEC,
                             "size", (json_int_t)s->disk_size, "state_size", (json_int_t)s->state_size));
    }
    return json_pack("{s:o, s:o}", "current", *list->current ? text_of(list->current) : json_null(), "snapshots",
                     array);
}

static int command_list(struct control_call *call, const struct disks *disks, struct err *err)
{
    json_t *object = json_object();
    struct disk_snapshots list;

    for (unsigned i = 0; i < disks->n; i++) {
        int r = virtio_blk_snapshot_list(disks->items[i]->dev, &list, err);
        if (r) {
            json_decref(object);
            return r;
        }
        json_object_set_new(object, disks->items[i]->id, list_one(&list));
        free(list.items);
    }
    call->result = object;
    return 0;
}

int snapshot_command(struct control_call *call, struct err *err)
{
    const char *verb = call->arguments[0];
    bool list = strcmp(verb, "list") == 0;
    const char *name = list ? NULL : call->arguments[1];
    const char *id = list ? call->arguments[1] : call->arguments[2];
    struct disks disks;

    if (!list && strcmp(verb, "create") != 0 && strcmp(verb, "revert") != 0 && strcmp(verb, "delete") != 0)
        return err_set(err, -EINVAL, "snapshot: '%.60s': accepted are create, revert, delete and list", verb);
    if (!list && !name)
        return err_set(err, -EINVAL, "snapshot %s: a name is missing: accepted is snapshot %s NAME [ID]", verb, verb);
    if (list && call->n > 2)
        return err_set(err, -EINVAL, "snapshot list with %u arguments: accepted is snapshot list [ID]", call->n);
    int r = choose(call->machine, id, &disks, err);
    if (r)
        return r;
    if (list)
        return command_list(call, &disks, err);
    if (strcmp(verb, "create") == 0)
        return command_create(call, &disks, name, id, err);
    if (call->machine->snapshot_job)
        return err_set(err, -EBUSY, "a snapshot is being made");
    if (backup_command_runs(call->machine))
        return err_set(err, -EBUSY, "a backup is being made, which needs its snapshot; backup cancel ends it");
    if (strcmp(verb, "revert") == 0)
        return command_revert(call, &disks, name, err);
    return command_delete(call, &disks, name, err);
}
