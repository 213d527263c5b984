/*
 * The new file has no name (O_TMPFILE) until it is done: what ends the process takes it along. Where the file system has no such files it has a hidden name
 * beside the place, ".NAME.PID-N.tmp", which SIGKILL leaves behind. One that replaces another has that name too, between the last two system calls.
 */
#include "image/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_protocol.h"

struct image_target {
    char *place;     /* symbolic links resolved, where something is there */
    char *name;      /* as it was given */
    char *temporary; /* beside it; NULL: none yet */
    int fd;          /* of the new file; -1: in place */
    bool replace;
    char path[64]; /* of the file without a name */
};

static int complain(const struct image_target *t, int code, struct err *err)
{
    return err_set(err, code, "cannot write '%.200s': %s", t->name, strerror(-code));
}

/* The directory part of `path` as a string of its own. */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* A hidden name beside the place that nobody else uses, for a new file, or for the one without a name. */
static int take_temporary(struct image_target *t, bool make)
{
    const char *slash = strrchr(t->place, '/');
    int directory = slash ? (int)(slash + 1 - t->place) : 0;

    for (unsigned i = 0; i < 100; i++) {
        char *name;
        int fd = -1, r;
        if (asprintf(&name, "%.*s.%.200s.%d-%u.tmp", directory, t->place, t->place + directory, (int)getpid(), i) < 0)
            return -ENOMEM;
        if (make)
            r = fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        else
            r = linkat(AT_FDCWD, t->path, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
        int code = -errno;
        if (r >= 0) {
            t->fd = make ? fd : t->fd;
            t->temporary = name;
            return 0;
        }
        free(name);
        if (code != -EEXIST)
            return code;
    }
    return -EEXIST;
}

static int make_file(struct image_target *t)
{
    char *dir = directory_of(t->place);

    if (!dir)
        return -ENOMEM;
    t->fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0666);
    int r = t->fd < 0 ? -errno : 0;
    free(dir);
    if (r == -EOPNOTSUPP || r == -EISDIR)
        return take_temporary(t, true);
    snprintf(t->path, sizeof(t->path), "/proc/self/fd/%d", t->fd);
    return r;
}

static int open_local(struct image_target *t, const char *path, struct err *err)
{
    struct stat st;
    bool exists = stat(path, &st) == 0;
    int r = exists || errno == ENOENT ? 0 : -errno;

    if (r == 0 && exists && !t->replace)
        return err_set(err, -EEXIST, "'%.200s' is there already; --replace puts the new one in its place", path);
    if (r == 0 && exists && S_ISBLK(st.st_mode))
        return 0;
    if (r == 0 && exists && !S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "'%.200s' is neither a regular file nor a block device", path);
    t->place = exists ? realpath(path, NULL) : strdup(path);
    if (r == 0 && !t->place)
        r = -errno;
    if (r == 0)
        r = make_file(t);
    if (r == 0 && exists && fchmod(t->fd, st.st_mode & 0777) < 0)
        r = -errno;
    return r ? complain(t, r, err) : 0;
}

int image_target_open(struct image_target **out, const char *path, bool replace, struct err *err)
{
    struct image_target *t = calloc(1, sizeof(*t));
    int r = 0;

    *out = NULL;
    if (!t)
        return err_set(err, -ENOMEM, "out of memory");
    t->fd = -1;
    t->replace = replace;
    t->name = strdup(path);
    if (!t->name)
        r = err_set(err, -ENOMEM, "out of memory");
    else if (file_protocol_is(path))
        r = replace ? 0 : err_set(err, -EINVAL, "'%.200s' is written in place; --replace permits it", path);
    else
        r = open_local(t, path, err);
    if (r) {
        image_target_close(t);
        return r;
    }
    *out = t;
    return 0;
}

const char *image_target_path(const struct image_target *t)
{
    return t->fd < 0 ? t->name : t->temporary ? t->temporary : t->path;
}

bool image_target_in_place(const struct image_target *t)
{
    return t->fd < 0;
}

static int sync_directory(const struct image_target *t)
{
    char *dir = directory_of(t->place);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int r = !dir ? -ENOMEM : fd < 0 || fsync(fd) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    free(dir);
    /* Some file systems have nothing to sync there. */
    return r == -EINVAL ? 0 : r;
}

/* Not every file system has this rename, and not every one has links: each of those without files that have no name has one of both. */
static int rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        return -errno;
    return link(from, to) < 0 || unlink(from) < 0 ? -errno : 0;
}

/* Without `replace` it fails where something has come meanwhile. */
static int put_in_place(struct image_target *t)
{
    int r = 0;

    if (!t->replace && !t->temporary)
        return linkat(AT_FDCWD, t->path, AT_FDCWD, t->place, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
    if (!t->temporary)
        r = take_temporary(t, false);
    if (r == 0)
        r = t->replace ? (rename(t->temporary, t->place) < 0 ? -errno : 0) : rename_new(t->temporary, t->place);
    if (r)
        return r;
    free(t->temporary);
    t->temporary = NULL;
    return 0;
}

int image_target_commit(struct image_target *t, struct err *err)
{
    if (t->fd < 0)
        return 0;
    int r = fsync(t->fd) < 0 ? -errno : put_in_place(t);
    if (r == 0)
        r = sync_directory(t);
    return r ? complain(t, r, err) : 0;
}

void image_target_close(struct image_target *t)
{
    if (!t)
        return;
    if (t->temporary)
        unlink(t->temporary);
    if (t->fd >= 0)
        close(t->fd);
    free(t->temporary);
    free(t->place);
    free(t->name);
    free(t);
}
