#include "device/share_spec.h"

#include <errno.h>
#include <stdio.h>

#include "base/keyval.h"

struct values {
    char dir[KEYVAL_PATH_MAX], socket[KEYVAL_PATH_MAX], virtiofsd[KEYVAL_PATH_MAX];
    char tag[KEYVAL_TEXT_MAX], id[KEYVAL_TEXT_MAX];
    int cache;
    bool readonly;
};

/* The first is for directories, the last for sockets, the others for both. */
static const struct keyval_key keys[] = {
    {.name = "a directory", .kind = KEYVAL_FIRST, .offset = offsetof(struct values, dir)},
    {.name = "tag", .kind = KEYVAL_TEXT, .offset = offsetof(struct values, tag)},
    {.name = "readonly", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, readonly)},
    {.name = "cache", .kind = KEYVAL_CHOICE, .offset = offsetof(struct values, cache), .choices = "auto|always|none"},
    {.name = "virtiofsd", .kind = KEYVAL_PATH, .offset = offsetof(struct values, virtiofsd)},
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct values, id)},
    {.name = "socket", .kind = KEYVAL_PATH, .offset = offsetof(struct values, socket)},
};

static const struct keyval_table dir_table = {.what = "share", .keys = keys, .n = ARRAY_SIZE(keys) - 1};
static const struct keyval_table socket_table = {.what = "share", .keys = keys + 1, .n = ARRAY_SIZE(keys) - 1};

_Static_assert(KEYVAL_PATH_MAX <= PATH_MAX, "a path fits");

int share_spec_parse(const char *spec, struct virtio_fs_conf *conf, char id[SHARE_SPEC_ID_SIZE], struct err *err)
{
    bool socket = strncmp(spec, "socket=", 7) == 0;
    struct values v = {0};

    int r = keyval_parse(socket ? &socket_table : &dir_table, spec, &v, err);
    if (r < 0)
        return r;
    if (!*v.tag)
        return err_set(err, -EINVAL, "share: '%.200s' has no tag=, the name that the guest mounts it by", spec);
    if (strlen(v.tag) > VIRTIO_FS_TAG_MAX)
        return err_set(err, -EINVAL, "share: tag='%.100s': accepted are 1 to %d bytes", v.tag, VIRTIO_FS_TAG_MAX);
    if (strlen(v.id) >= SHARE_SPEC_ID_SIZE)
        return err_set(err, -EINVAL, "share: id=%.60s...: accepted are 1 to %d characters", v.id,
                       SHARE_SPEC_ID_SIZE - 1);
    if (socket && *v.virtiofsd)
        return err_set(err, -EINVAL, "share: '%.200s': virtiofsd= goes with a directory, not with socket=", spec);
    *conf = (struct virtio_fs_conf){.cache = (enum virtio_fs_cache)v.cache, .readonly = v.readonly};
    memcpy(conf->tag, v.tag, strlen(v.tag));
    memcpy(conf->source, v.dir, sizeof(v.dir));
    memcpy(conf->socket, v.socket, sizeof(v.socket));
    memcpy(conf->virtiofsd, v.virtiofsd, sizeof(v.virtiofsd));
    snprintf(id, SHARE_SPEC_ID_SIZE, "%s", v.id);
    return 0;
}
