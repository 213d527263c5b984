#include "device/share_spec.h"

#include <errno.h>

static const char *const caches[] = {"auto", "always", "none"};

/* The first is for directories, the last for sockets, the others for both. */
static const struct keyval_key keys[] = {
    {.name = "a directory", .kind = KEYVAL_FIRST, .offset = offsetof(struct share_spec, dir)},
    {.name = "tag", .kind = KEYVAL_TEXT, .offset = offsetof(struct share_spec, tag)},
    {.name = "readonly", .kind = KEYVAL_FLAG, .offset = offsetof(struct share_spec, readonly)},
    {.name = "cache",
     .kind = KEYVAL_CHOICE,
     .offset = offsetof(struct share_spec, cache),
     .choices = "auto|always|none"},
    {.name = "virtiofsd", .kind = KEYVAL_PATH, .offset = offsetof(struct share_spec, virtiofsd)},
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct share_spec, id)},
    {.name = "socket", .kind = KEYVAL_PATH, .offset = offsetof(struct share_spec, socket)},
};

static const struct keyval_table dir_table = {.what = "share", .keys = keys, .n = ARRAY_SIZE(keys) - 1};
static const struct keyval_table socket_table = {.what = "share", .keys = keys + 1, .n = ARRAY_SIZE(keys) - 1};

int share_spec_parse(struct share_spec *spec, const char *text, struct err *err)
{
    bool socket = strncmp(text, "socket=", 7) == 0;

    memset(spec, 0, sizeof(*spec));
    int r = keyval_parse(socket ? &socket_table : &dir_table, text, spec, err);
    if (r < 0)
        return r;
    if (!*spec->tag)
        return err_set(err, -EINVAL, "share: '%.200s' has no tag=, the name that the guest mounts it by", text);
    if (strlen(spec->tag) > VIRTIO_FS_TAG_MAX)
        return err_set(err, -EINVAL, "share: tag='%.100s': accepted are 1 to %d bytes", spec->tag, VIRTIO_FS_TAG_MAX);
    if (socket && *spec->virtiofsd)
        return err_set(err, -EINVAL, "share: '%.200s': virtiofsd= goes with a directory, not with socket=", text);
    return 0;
}

void share_spec_conf(const struct share_spec *spec, struct virtio_fs_conf *conf)
{
    *conf = (struct virtio_fs_conf){.tag = spec->tag,
                                    .source = *spec->dir ? spec->dir : NULL,
                                    .socket = spec->socket,
                                    .virtiofsd = spec->virtiofsd,
                                    .cache = caches[spec->cache],
                                    .readonly = spec->readonly};
}
