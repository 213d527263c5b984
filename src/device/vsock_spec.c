#include "device/vsock_spec.h"

#include <errno.h>

#include "device/virtio_vsock.h"

struct values {
    char id[KEYVAL_TEXT_MAX];
    uint64_t cid;
    char path[KEYVAL_PATH_MAX];
};

static const struct keyval_key keys[] = {
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct values, id)},
    {.name = "cid",
     .kind = KEYVAL_NUMBER,
     .offset = offsetof(struct values, cid),
     .least = VIRTIO_VSOCK_CID_LEAST,
     .most = VIRTIO_VSOCK_CID_MOST},
    {.name = "unix", .kind = KEYVAL_PATH, .offset = offsetof(struct values, path)},
};

static const struct keyval_table table = {.what = "vsock", .keys = keys, .n = ARRAY_SIZE(keys)};

int vsock_spec_parse(struct vsock_spec *spec, const char *text, struct err *err)
{
    struct values v = {.cid = VIRTIO_VSOCK_CID_LEAST};
    int r = keyval_parse(&table, text, &v, err);

    if (r < 0)
        return r;
    if (!*v.path)
        return err_set(err, -EINVAL, "vsock: '%.100s' needs unix=PATH, the host's socket", text);
    if (strlen(v.id) >= VSOCK_SPEC_ID_SIZE)
        return err_set(err, -EINVAL, "vsock: id=%.60s...: accepted are 1 to %d characters", v.id,
                       VSOCK_SPEC_ID_SIZE - 1);
    if (virtio_vsock_check_path(v.path, err) < 0)
        return -EINVAL;
    spec->cid = v.cid;
    memcpy(spec->id, v.id, sizeof(spec->id));
    memcpy(spec->path, v.path, sizeof(spec->path));
    return 0;
}
