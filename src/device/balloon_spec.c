#include "device/balloon_spec.h"

#include <errno.h>

static const struct keyval_key keys[] = {
    {.name = "on", .kind = KEYVAL_FLAG, .offset = offsetof(struct balloon_spec, on)},
    {.name = "target", .kind = KEYVAL_SIZE, .offset = offsetof(struct balloon_spec, target), .most = 1024 * GIB},
    {.name = "stats", .kind = KEYVAL_NUMBER, .offset = offsetof(struct balloon_spec, stats), .most = 86400},
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct balloon_spec, id)},
};
static const struct keyval_table table = {.what = "balloon", .keys = keys, .n = ARRAY_SIZE(keys)};

int balloon_spec_parse(struct balloon_spec *spec, const char *text, struct err *err)
{
    memset(spec, 0, sizeof(*spec));
    if (!*text)
        return err_set(err, -EINVAL, "balloon: nothing is said; accepted is %s", BALLOON_SPEC_FORMAT);
    return keyval_parse(&table, text, spec, err);
}

void balloon_spec_conf(const struct balloon_spec *spec, struct virtio_balloon_conf *conf)
{
    *conf = (struct virtio_balloon_conf){.target = spec->target, .stats_secs = spec->stats};
}
