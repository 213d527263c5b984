#include "control/backup_command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/keyval.h"
#include "console/agent.h"
#include "device/virtio_blk.h"
#include "image/backup_live.h"

struct spec {
    char repo[KEYVAL_PATH_MAX], name[KEYVAL_TEXT_MAX];
    bool full, same_disk_anyway;
};

static const struct keyval_key keys[] = {
    {"REPO", KEYVAL_FIRST, offsetof(struct spec, repo), 0, 0, NULL},
    {"full", KEYVAL_FLAG, offsetof(struct spec, full), 0, 0, NULL},
    {"name", KEYVAL_TEXT, offsetof(struct spec, name), 0, 0, NULL},
    {"same-disk-anyway", KEYVAL_FLAG, offsetof(struct spec, same_disk_anyway), 0, 0, NULL},
};

static const struct keyval_table table = {.what = "backup", .keys = keys, .n = ARRAY_SIZE(keys)};

enum state { STARTING, COPYING, DONE, FAILED };

struct backup_job {
    struct machine *m;
    char id[ATTACH_ID_SIZE];
    struct spec spec;
    enum state state;
    struct backup_live *live; /* while STARTING or COPYING */
    struct control_later later;
    const char *consistency;
    bool frozen; /* an agent waits to thaw */
    struct backup_result result;
    struct err err;
};

json_t *backup_command_status(const struct machine *m)
{
    static const char *const states[] = {"starting", "copying", "done", "failed"};
    const struct backup_job *job = m->backup_job;
    const struct backup_point *p = &job->result.point;
    uint64_t done = 0, total = 0;
    json_t *json = json_pack("{s:s, s:s}", "disk", job->id, "state", states[job->state]);

    if (job->state == COPYING) {
        backup_live_progress(job->live, &done, &total);
        json_object_set_new(json, "done", json_integer((json_int_t)done));
        json_object_set_new(json, "of", json_integer((json_int_t)total));
    }
    if (job->state == FAILED)
        json_object_set_new(json, "error", json_string(job->err.msg));
    if (job->state == DONE) {
        json_object_set_new(json, "point", json_string(p->id));
        json_object_set_new(json, "kind", json_string(*p->parent ? "incremental" : "full"));
        json_object_set_new(json, "changed", json_integer((json_int_t)job->result.changed));
        json_object_set_new(json, "file_size", json_integer((json_int_t)p->file_size));
        json_object_set_new(json, "why", json_string(job->result.why));
    }
    if (job->consistency)
        json_object_set_new(json, "consistency", json_string(job->consistency));
    return json;
}

bool backup_command_runs(const struct machine *m)
{
    return m->backup_job && (m->backup_job->state == STARTING || m->backup_job->state == COPYING);
}

/* ---- on the disk's thread ---- */

static int start_on(struct disk *disk, void *opaque)
{
    struct backup_job *job = opaque;

    return backup_live_start(job->live, disk, &job->err);
}

static int finish_on(struct disk *disk, void *opaque)
{
    struct backup_job *job = opaque;
    const struct backup_result *result;
    int r = backup_live_finish(job->live, disk, &result, &job->err);

    job->result = *result;
    return r;
}

/* ---- the life of a job ---- */

static struct attachment *disk_of(const struct backup_job *job, struct err *err)
{
    struct attachment *a = attach_find(job->m, job->id, err);

    if (a && a->kind != &attach_disk) {
        err_set(err, -EINVAL, "'%s' is no disk", job->id);
        return NULL;
    }
    return a;
}

static void finish(struct backup_job *job)
{
    struct attachment *a = disk_of(job, &job->err);
    int r = a ? virtio_blk_with_disk(a->dev, finish_on, job) : -ENOENT;

    job->state = r ? FAILED : DONE;
    backup_live_close(job->live);
    job->live = NULL;
}

static void copied(void *opaque)
{
    finish(opaque);
}

static int start(struct backup_job *job)
{
    struct attachment *a = disk_of(job, &job->err);
    int r = a ? virtio_blk_with_disk(a->dev, start_on, job) : -ENOENT;

    if (r == 0) {
        job->state = COPYING;
        r = backup_live_run(job->live, &job->err);
        if (r) {
            backup_live_cancel(job->live);
            finish(job);
        }
        return r;
    }
    job->state = FAILED;
    backup_live_close(job->live);
    job->live = NULL;
    return r;
}

static void answer(struct backup_job *job)
{
    struct control_later later = job->later;

    job->frozen = false;
    later.answer(later.opaque, later.ticket, job->state == FAILED ? NULL : backup_command_status(job->m),
                 job->state == FAILED ? job->err.msg : NULL);
}

static void on_thawed(void *opaque, const struct agent_answer *thawed)
{
    (void)thawed;
    answer(opaque);
}

static void on_frozen(void *opaque, const struct agent_answer *frozen)
{
    struct backup_job *job = opaque;

    job->consistency = frozen->result == 0 ? "file systems frozen" : "crash-consistent";
    (void)!start(job); /* its state tells */
    /* Also after an error: a part may be frozen. Who has not even answered has frozen nothing. */
    bool asked = frozen->result != -ENOTCONN && frozen->result != -ENODATA;
    if (!asked || agent_ask(job->m->agent, AGENT_THAW, on_thawed, job))
        answer(job);
}

static void forget(struct machine *m)
{
    struct backup_job *job = m->backup_job;

    m->backup_job = NULL;
    backup_live_close(job->live);
    free(job);
}

static int open_job(struct control_call *call, struct backup_job **out, struct err *err)
{
    struct machine *m = call->machine;
    struct backup_job *job = calloc(1, sizeof(*job));

    if (!job)
        return err_set(err, -ENOMEM, "out of memory");
    *job = (struct backup_job){.m = m, .later = call->later, .consistency = "crash-consistent"};
    snprintf(job->id, sizeof(job->id), "%s", call->arguments[0]);
    int r = keyval_parse(&table, call->arguments[1], &job->spec, err);
    if (r == 0 && !disk_of(job, err))
        r = -ENOENT;
    const struct backup_live_conf conf = {.repo = job->spec.repo,
                                          .name = *job->spec.name ? job->spec.name : NULL,
                                          .full = job->spec.full,
                                          .same_disk_anyway = job->spec.same_disk_anyway,
                                          .time = time(NULL),
                                          .loop = m->vm.loop,
                                          .done = copied,
                                          .opaque = job};
    if (r == 0)
        r = backup_live_open(&job->live, &conf, err);
    if (r) {
        free(job);
        return r;
    }
    if (m->backup_job)
        forget(m);
    m->backup_job = *out = job;
    return 0;
}

static int begin(struct control_call *call, struct err *err)
{
    struct machine *m = call->machine;
    struct backup_job *job = NULL;

    if (backup_command_runs(m) || (m->backup_job && m->backup_job->frozen) || m->snapshot_job)
        return err_set(err, -EBUSY, "another %s is being made", m->snapshot_job ? "snapshot" : "backup");
    int r = open_job(call, &job, err);
    if (r)
        return r;
    if (m->agent && !m->paused && agent_ask(m->agent, AGENT_FREEZE, on_frozen, job) == 0) {
        job->frozen = true;
        call->comes_later = true;
        return 0;
    }
    r = start(job);
    if (r)
        *err = job->err;
    else
        call->result = backup_command_status(m);
    return r;
}

int backup_command(struct control_call *call, struct err *err)
{
    struct machine *m = call->machine;
    bool status = strcmp(call->arguments[0], "status") == 0, cancel = strcmp(call->arguments[0], "cancel") == 0;

    if (call->n == 2)
        return begin(call, err);
    if (!status && !cancel)
        return err_set(err, -EINVAL, "backup '%.60s': accepted are ID REPO, status and cancel", call->arguments[0]);
    if (status ? !m->backup_job : !backup_command_runs(m))
        return err_set(err, -ENOENT, "no backup %s", status ? "was made since the VM started" : "is being made");
    if (cancel && m->backup_job->state == COPYING)
        backup_live_cancel(m->backup_job->live);
    else if (cancel)
        return err_set(err, -EBUSY, "the backup has not begun to copy yet");
    call->result = backup_command_status(m);
    return 0;
}

void backup_command_abandon(struct machine *m)
{
    struct backup_job *job = m->backup_job;

    if (!job)
        return;
    if (job->frozen)
        agent_forget(m->agent);
    if (job->state == COPYING) {
        backup_live_stop(job->live);
        finish(job);
    }
    forget(m);
}
