#include "device/vsock_spec.h"

#include <errno.h>

#include "device/virtio_vsock.h"

static const struct keyval_key keys[] = {
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct vsock_spec, id)},
    {.name = "cid",
     .kind = KEYVAL_NUMBER,
     .offset = offsetof(struct vsock_spec, cid),
     .least = VIRTIO_VSOCK_CID_LEAST,
     .most = VIRTIO_VSOCK_CID_MOST},
    {.name = "unix", .kind = KEYVAL_PATH, .offset = offsetof(struct vsock_spec, path)},
};

static const struct keyval_table table = {.what = "vsock", .keys = keys, .n = ARRAY_SIZE(keys)};

int vsock_spec_parse(struct vsock_spec *spec, const char *text, struct err *err)
{
    *spec = (struct vsock_spec){.cid = VIRTIO_VSOCK_CID_LEAST};
    int r = keyval_parse(&table, text, spec, err);
    if (r < 0)
        return r;
    if (!*spec->path)
        return err_set(err, -EINVAL, "vsock: '%.100s' needs unix=PATH, the host's socket", text);
    r = virtio_vsock_check_path(spec->path, err);
    return r < 0 ? -EINVAL : 0;
}
