#include "disk/disk_chain.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "disk/disk_allow.h"
#include "disk/file_protocol.h"

_Static_assert(PATH_MAX <= 4096, "what realpath() gives fits");

int disk_chain_path(const char *path, const char *name, char *out, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char joined[8192];

    if (file_protocol_is(name)) {
        if ((size_t)snprintf(out, 4096, "%s", name) >= 4096)
            return err_set(err, -ENAMETOOLONG, "backing file '%.60s...': the name is too long", name);
        return 0;
    }
    if (*name == '/' || !slash || file_protocol_is(path))
        snprintf(joined, sizeof(joined), "%s", name);
    else
        snprintf(joined, sizeof(joined), "%.*s%.4000s", (int)(slash - path + 1), path, name);
    if (!realpath(joined, out))
        return err_set(err, -errno, "disk '%.200s': its backing file '%.200s': %s", path, joined, strerror(errno));
    return 0;
}

static struct disk_link link_of(const struct disk_link *above, const char *path)
{
    struct disk_link link = {.above = above};
    struct stat st;

    if (stat(path, &st) == 0) {
        link.known = true;
        link.dev = st.st_dev;
        link.ino = st.st_ino;
    }
    return link;
}

/* Whether the file may be the next of the chain. */
static int check_chain(const struct disk_link *chain, const char *path, const struct disk_conf *conf, struct err *err)
{
    struct disk_link next = link_of(chain, path);
    unsigned n = 1;

    for (const struct disk_link *l = chain; l; l = l->above, n++)
        if (l->known && next.known && l->dev == next.dev && l->ino == next.ino)
            return err_set(err, -ELOOP, "disk '%.200s': its backing file '%.200s' lies above it: the chain is a loop",
                           conf->path, path);
    if (n > DISK_CHAIN_MAX)
        return err_set(err, -ELOOP, "disk '%.200s': a chain of more than %d images", conf->path, DISK_CHAIN_MAX);
    return 0;
}

static int open_below(struct disk **backing, const char *name, const char *format, const struct disk_conf *conf,
                      bool read_only, struct loop *loop, struct err *err)
{
    struct disk_link chain = link_of(conf->above, conf->path);
    char path[4096];

    *backing = NULL;
    if (strncmp(name, "json:", 5) == 0)
        return err_set(err, -ENOTSUP, "disk '%.200s': backing file '%.60s...': accepted are names of files", conf->path,
                       name);
    if (!format || !*format)
        return err_set(
            err, -EINVAL,
            "disk '%.200s' does not say which format its backing file '%.200s' has; vireo disk rebase --unsafe "
            "--onto FILE --onto-format FORMAT says it",
            conf->path, name);
    int r = disk_chain_path(conf->path, name, path, err);
    if (r)
        return r;
    if (!disk_allow_permits(conf->allow, path))
        return err_set(err, -EPERM,
                       "disk '%.200s' names the backing file '%.200s', which nobody has permitted; backing=PATH with "
                       "--disk, --backing PATH, or a line in /etc/vireo/backing does",
                       conf->path, path);
    r = check_chain(&chain, path, conf, err);
    if (r)
        return r;
    const struct disk_conf below = {.path = path,
                                    .format = format,
                                    .read_only = read_only,
                                    .discard = !read_only,
                                    .direct = conf->direct,
                                    .threads = conf->threads,
                                    .no_lock = conf->no_lock,
                                    .allow = conf->allow,
                                    .above = &chain};
    return disk_open(backing, &below, loop, err);
}

int disk_chain_open(struct disk **backing, const char *name, const char *format, const struct disk_conf *conf,
                    struct loop *loop, struct err *err)
{
    return open_below(backing, name, format, conf, true, loop, err);
}

int disk_chain_open_writable(struct disk **backing, const char *name, const char *format, const struct disk_conf *conf,
                             struct loop *loop, struct err *err)
{
    return open_below(backing, name, format, conf, false, loop, err);
}

/* The directory of the image at `path`, which need not be there yet, with the slash at its end. */
static int directory_of(const char *path, char out[PATH_MAX], struct err *err)
{
    char above[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (realpath(path, out)) {
        strrchr(out, '/')[1] = '\0';
        return 0;
    }
    snprintf(above, sizeof(above), "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
    if (errno != ENOENT || !realpath(above, out) || strlen(out) + 1 >= PATH_MAX)
        return err_set(err, -errno, "disk '%.200s': %s", path, strerror(errno));
    if (out[1])
        strcat(out, "/");
    return 0;
}

int disk_chain_name(const char *path, const char *given, char *out, struct err *err)
{
    char directory[PATH_MAX], real[PATH_MAX];

    if (file_protocol_is(given) || *given == '/' || file_protocol_is(path)) {
        if ((size_t)snprintf(out, 4096, "%s", given) >= 4096)
            return err_set(err, -ENAMETOOLONG, "backing file '%.60s...': the name is too long", given);
        return 0;
    }
    if (!realpath(given, real))
        return err_set(err, -errno, "backing file '%.200s': %s", given, strerror(errno));
    int r = directory_of(path, directory, err);
    if (r < 0)
        return r;
    size_t n = strlen(directory); /* what lies beside the image stays beside it */
    snprintf(out, 4096, "%s", strncmp(real, directory, n) == 0 ? real + n : real);
    return 0;
}

/* ---- for what works on whole images ---- */

const char *disk_backing_name(const struct disk *disk, const char **format)
{
    *format = "";
    return disk->type->backing ? disk->type->backing->name(disk, format) : NULL;
}

struct disk *disk_backing(struct disk *disk)
{
    return disk->type->backing ? disk->type->backing->get(disk) : NULL;
}

void disk_backing_expect(struct disk *disk, uint64_t size)
{
    if (disk->type->backing)
        disk->type->backing->expect(disk, size);
}

static int writable(const struct disk *disk, struct err *err)
{
    if (!disk->type->backing)
        return err_set(err, -ENOTSUP, "disk '%.200s': its format '%s' has no backing file; accepted is qcow2",
                       disk->path, disk->type->name);
    return disk->read_only ? err_set(err, -EROFS, "disk '%.200s' is read-only", disk->path) : 0;
}

int disk_backing_set(struct disk *disk, const char *name, const char *format, struct err *err)
{
    int r = writable(disk, err);
    return r ? r : disk->type->backing->set(disk, name, format, err);
}

int disk_backing_empty(struct disk *disk, struct err *err)
{
    int r = writable(disk, err);
    return r ? r : disk->type->backing->empty(disk, err);
}
