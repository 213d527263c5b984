#include "cli/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directory part of `path` as a string of its own. */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* A name beside the target that nobody else uses; with a file of that name in *fd where fd is not NULL. */
static int make_temporary(struct outfile *f, int *fd)
{
    for (unsigned i = 0; i < 100; i++) {
        char *name;
        if (asprintf(&name, "%s.%d-%u.tmp", f->target, (int)getpid(), i) < 0)
            return -ENOMEM;
        if (fd) {
            *fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        } else {
            char proc[32];
            snprintf(proc, sizeof(proc), "/proc/self/fd/%d", f->fd);
            if (linkat(AT_FDCWD, proc, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0)
                fd = &f->fd;
        }
        int r = -errno;
        if (fd && *fd >= 0) {
            f->temporary = name;
            return 0;
        }
        free(name);
        if (r != -EEXIST)
            return r;
    }
    return -EEXIST;
}

static int open_unnamed(struct outfile *f)
{
    char *dir = directory_of(f->target);
    int r = 0;

    if (!dir)
        return -ENOMEM;
    f->fd = open(dir, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
    free(dir);
    if (f->fd < 0)
        r = errno == EOPNOTSUPP || errno == EISDIR ? make_temporary(f, &f->fd) : -errno;
    return r;
}

int outfile_open(struct outfile *f, const char *path, struct err *err)
{
    struct stat st;
    int r = 0;

    *f = (struct outfile){.fd = -1, .path = path};
    bool exists = stat(path, &st) == 0;
    if (!exists && (errno != ENOENT || !*path)) {
        r = -errno;
    } else if (exists && S_ISDIR(st.st_mode)) {
        r = -EISDIR;
    } else if (exists && !S_ISREG(st.st_mode)) {
        f->fd = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
        r = f->fd < 0 ? -errno : 0;
    } else if (exists && access(path, W_OK) < 0) {
        r = -errno;
    } else {
        f->target = exists ? realpath(path, NULL) : strdup(path);
        r = f->target ? open_unnamed(f) : -errno;
    }
    if (r < 0) {
        outfile_close(f);
        err_set(err, r, "cannot write '%.200s': %s", path, strerror(-r));
    }
    return r;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int outfile_commit(struct outfile *f, const char *data, size_t len, struct err *err)
{
    int r = write_all(f->fd, data, len);

    if (f->target) {
        if (r == 0 && !f->temporary)
            r = make_temporary(f, NULL);
        if (r == 0 && rename(f->temporary, f->target) < 0)
            r = -errno;
        if (r == 0) {
            free(f->temporary);
            f->temporary = NULL;
        }
    }
    /* Some file systems tell of a full disk only now. */
    if (close(f->fd) < 0 && r == 0)
        r = -errno;
    f->fd = -1;
    if (r < 0)
        err_set(err, r, "cannot write '%.200s': %s", f->path, strerror(-r));
    return r;
}

void outfile_close(struct outfile *f)
{
    if (f->temporary)
        unlink(f->temporary);
    if (f->fd >= 0)
        close(f->fd);
    free(f->temporary);
    free(f->target);
    *f = (struct outfile){.fd = -1};
}
