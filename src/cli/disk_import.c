#include "cli/disk_import.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVERY (100 * NS_PER_MS)

extern char **environ;

struct import {
    struct loop *loop;
    const struct image_job *job;
    pid_t pid;
    struct loop_fd output; /* of its standard output and standard error */
    struct loop_timer timer;
    uint64_t size; /* of the source: what the percentages are of */
    bool interrupted;
    char line[256]; /* up to the next end of a line */
    size_t len;
    char complaint[256]; /* the first line that is none of progress */
};

/* "    (12.50/100%)", or what it has to say. */
static void take_line(struct import *im)
{
    double percent;

    im->line[im->len] = '\0';
    if (sscanf(im->line, " (%lf/100%%)", &percent) == 1) {
        if (im->job->progress && percent >= 0 && percent <= 100)
            im->job->progress(im->job->opaque, (uint64_t)(percent / 100 * (double)im->size), im->size);
    } else if (im->len && !im->complaint[0]) {
        snprintf(im->complaint, sizeof(im->complaint), "%s", im->line);
    }
    im->len = 0;
}

static void on_output(void *opaque, uint32_t events)
{
    struct import *im = opaque;
    char buf[512];
    ssize_t n = read(im->output.fd, buf, sizeof(buf));

    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\r' || buf[i] == '\n')
            take_line(im);
        else if (im->len + 1 < sizeof(im->line))
            im->line[im->len++] = buf[i];
    }
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        take_line(im);
        loop_stop(im->loop);
    }
}

static void look(void *opaque)
{
    struct import *im = opaque;

    if (im->job->stop && *im->job->stop && !im->interrupted) {
        im->interrupted = true;
        kill(im->pid, SIGTERM);
    }
    loop_timer_set(&im->timer, loop_now() + EVERY);
}

/* Neither a name with a colon, nor a parent that the image names, is anything but a file's name. */
static char *source_of(const struct disk_import_conf *conf)
{
    json_t *json = json_pack("{s:s, s:n, s:{s:s, s:s}}", "driver", conf->format, "backing", "file", "driver", "file",
                             "filename", conf->from);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL, *source = NULL;

    if (text && asprintf(&source, "json:%s", text) < 0)
        source = NULL;
    free(text);
    json_decref(json);
    return source;
}

/* Our descriptors are not its. */
static char *target_of(const struct disk_import_conf *conf)
{
    static const char own[] = "/proc/self/";
    char *target;
    int n = strncmp(conf->to, own, sizeof(own) - 1) == 0
                ? asprintf(&target, "file:/proc/%d/%s", (int)getpid(), conf->to + sizeof(own) - 1)
                : asprintf(&target, "file:%s", conf->to);

    return n < 0 ? NULL : target;
}

static void options_of(const struct disk_import_conf *conf, char buf[160])
{
    int n = snprintf(buf, 160, "preallocation=%s", conf->preallocation);

    if (strcmp(conf->to_format, "qcow2") != 0)
        return;
    n += snprintf(buf + n, 160 - (size_t)n, ",compression_type=%s", conf->compression);
    if (conf->cluster_size)
        snprintf(buf + n, 160 - (size_t)n, ",cluster_size=%" PRIu64, conf->cluster_size);
}

/* Standard input is empty; the rest goes to `fd`. The signals that we wait for it does not block. */
static int spawn(const struct disk_import_conf *conf, int fd, pid_t *pid)
{
    char *source = source_of(conf), *target = target_of(conf), options[160];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int r;

    options_of(conf, options);
    const char *args[16] = {"qemu-img", "convert", "-p", "-O", conf->to_format, "-o", options};
    size_t n = 7;
    if (conf->compress)
        args[n++] = "-c";
    args[n++] = source;
    args[n++] = target;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, fd, 1);
    posix_spawn_file_actions_adddup2(&actions, fd, 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    r = source && target ? -posix_spawnp(pid, args[0], &actions, &attributes, (char *const *)(uintptr_t)args, environ)
                         : -ENOMEM;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(source);
    free(target);
    return r;
}

static int finish(struct import *im, const struct disk_import_conf *conf, struct err *err)
{
    static const char prefix[] = "qemu-img: ";
    const char *text = im->complaint;
    int status;

    while (waitpid(im->pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_set(err, -errno, "qemu-img: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (im->interrupted || (im->job->stop && *im->job->stop))
        return err_set(err, -EINTR, "interrupted; nothing was left behind");
    text += strncmp(text, prefix, sizeof(prefix) - 1) == 0 ? sizeof(prefix) - 1 : 0;
    if (WIFSIGNALED(status))
        return err_set(err, -EIO, "qemu-img, which reads '%.200s', was ended by signal %d", conf->from,
                       WTERMSIG(status));
    return err_set(err, -EINVAL, "qemu-img cannot read '%.150s' as %s: %.200s", conf->from, conf->format,
                   *text ? text : "it does not say why");
}

int disk_import(const struct disk_import_conf *conf, struct loop *loop, const struct image_job *job, struct err *err)
{
    struct import im = {.loop = loop, .job = job};
    struct stat st;
    int fds[2], r;

    if (stat(conf->from, &st) < 0)
        return err_set(err, -errno, "disk '%.200s': %s", conf->from, strerror(errno));
    im.size = (uint64_t)st.st_size;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(err, -errno, "pipe: %s", strerror(errno));
    r = spawn(conf, fds[1], &im.pid);
    close(fds[1]);
    if (r < 0) {
        close(fds[0]);
        return err_set(err, r, "qemu-img, which format '%s' takes, cannot be run: %s%s", conf->format, strerror(-r),
                       r == -ENOENT ? "; Debian's package qemu-utils has it" : "");
    }
    im.output = (struct loop_fd){.fd = fds[0], .fn = on_output, .opaque = &im};
    loop_timer_init(&im.timer, loop, look, &im);
    loop_timer_set(&im.timer, loop_now() + EVERY);
    r = loop_fd_add(loop, &im.output, EPOLLIN);
    if (r == 0) {
        loop_run(loop);
        loop_fd_remove(loop, &im.output);
    } else {
        kill(im.pid, SIGTERM);
    }
    loop_timer_cancel(&im.timer);
    close(fds[0]);
    int ended = finish(&im, conf, err);
    return r < 0 ? err_set(err, r, "qemu-img: %s", strerror(-r)) : ended;
}
