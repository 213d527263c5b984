#include "control/save.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/backup_command.h"
#include "device/virtio_blk.h"
#include "image/target.h"
#include "machine/machine_state.h"

#define FILE_MODE 0600 /* all that is in a guest's memory is in it */

/* Signals that end vireo are blocked, and read by the loop that waits here. */
static bool ending_signal(void *opaque)
{
    static const int ending[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
    sigset_t pending;

    if (sigpending(&pending) < 0)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(ending); i++)
        if (sigismember(&pending, ending[i]) == 1)
            return true;
    return false;
}

static int open_target(struct image_target **target, const char *path, struct err *err)
{
    int r = image_target_open(target, path, true, err);

    if (r == 0 && image_target_in_place(*target)) {
        image_target_close(*target);
        r = err_set(err, -EINVAL, "cannot save to '%.200s': accepted is a file, which then is whole or absent", path);
    }
    return r;
}

int save_check(const char *path, struct err *err)
{
    struct image_target *target;
    int r = open_target(&target, path, err);

    if (r == 0)
        image_target_close(target);
    return r;
}

static int flush_disks(struct machine *m, struct err *err)
{
    for (const struct attachment *a = m->attachments; a; a = a->next) {
        int r = a->kind == &attach_disk ? virtio_blk_flush(a->dev) : 0;
        if (r < 0)
            return err_set(err, r, "disk '%s': what was written to it cannot be made durable: %s", a->id, strerror(-r));
    }
    return 0;
}

static int write_file(struct machine *m, const char *path, struct err *err)
{
    const struct vm_state_stop stop = {.wanted = ending_signal};
    struct image_target *target;
    int r = open_target(&target, path, err);

    if (r < 0)
        return r;
    int fd = open(image_target_path(target), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, FILE_MODE) < 0)
        r = err_set(err, -errno, "%s", strerror(errno));
    if (r == 0)
        r = machine_state_save(m, fd, &stop, err);
    if (fd >= 0 && close(fd) < 0 && r == 0)
        r = err_set(err, -errno, "%s", strerror(errno));
    if (r < 0)
        err_prefix(err, "cannot save to '%.200s'", path);
    else
        r = image_target_commit(target, err);
    image_target_close(target);
    return r;
}

/* What a file could not hold. */
static int check_idle(const struct machine *m, struct err *err)
{
    if (m->vm.end != VM_RUNNING || !vm_is_running(&m->vm))
        return err_set(err, -EBUSY, "cannot save: the VM does not run");
    if (m->snapshot_job || (m->backup_job && backup_command_runs(m)))
        return err_set(err, -EBUSY, "cannot save: a %s is under way", m->snapshot_job ? "snapshot" : "backup");
    return 0;
}

int save_machine(struct machine *m, const char *path, struct err *err)
{
    bool was_paused = m->paused;
    int r = check_idle(m, err);

    if (r < 0)
        return r;
    vm_settle(&m->vm);
    attach_close_ejected(m);
    machine_pause(m, "its state is saved");
    r = flush_disks(m, err);
    if (r == 0)
        r = write_file(m, path, err);
    if (r == 0) {
        log_notice("the VM's state is saved to '%s'", path);
        vm_end(&m->vm, VM_END_SAVED, 0);
    } else if (!was_paused) {
        machine_resume(m);
    }
    return r;
}

int save_command(struct control_call *call, struct err *err)
{
    return save_machine(call->machine, call->arguments[0], err);
}
