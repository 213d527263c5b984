#include "device/balloon_spec.h"

#include <errno.h>
#include <stdio.h>

#include "base/keyval.h"

struct values {
    bool on; /* says nothing more than that there is one */
    uint64_t target, stats;
    char id[KEYVAL_TEXT_MAX];
};

static const struct keyval_key keys[] = {
    {.name = "on", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, on)},
    {.name = "target", .kind = KEYVAL_SIZE, .offset = offsetof(struct values, target), .most = 1024 * GIB},
    {.name = "stats", .kind = KEYVAL_NUMBER, .offset = offsetof(struct values, stats), .most = 86400},
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct values, id)},
};
static const struct keyval_table table = {.what = "balloon", .keys = keys, .n = ARRAY_SIZE(keys)};

int balloon_spec_parse(const char *spec, struct virtio_balloon_conf *conf, char id[BALLOON_SPEC_ID_SIZE],
                       struct err *err)
{
    struct values v = {0};

    if (!*spec)
        return err_set(err, -EINVAL, "balloon: nothing is said; accepted is %s", BALLOON_SPEC_SYNTAX);
    int r = keyval_parse(&table, spec, &v, err);
    if (r < 0)
        return r;
    if (strlen(v.id) >= BALLOON_SPEC_ID_SIZE)
        return err_set(err, -EINVAL, "balloon: id=%.60s...: accepted are 1 to %d characters", v.id,
                       BALLOON_SPEC_ID_SIZE - 1);
    *conf = (struct virtio_balloon_conf){.target = v.target, .stats_secs = v.stats};
    snprintf(id, BALLOON_SPEC_ID_SIZE, "%s", v.id);
    return 0;
}
