#include "disk/disk_spec.h"

#include <errno.h>

#include "disk/disk_allow.h"
#include "disk/disk_space.h"

#define RATE_MAX    (UINT64_C(1) << 40)
#define QUEUES_MAX  64
#define TIMEOUT_MAX 86400

#define AT(member) .offset = offsetof(struct disk_spec, member)

static const struct keyval_key keys[] = {
    {.name = "FILE", .kind = KEYVAL_FIRST, AT(path)},
    {.name = "format", .kind = KEYVAL_TEXT, AT(format)},
    {.name = "readonly", .kind = KEYVAL_FLAG, AT(read_only)},
    {.name = "discard", .kind = KEYVAL_SWITCH, AT(discard)},
    {.name = "iops", .kind = KEYVAL_NUMBER, AT(iops), .least = 1, .most = RATE_MAX},
    {.name = "iops-burst", .kind = KEYVAL_NUMBER, AT(iops_burst), .least = 1, .most = RATE_MAX},
    {.name = "bps", .kind = KEYVAL_SIZE, AT(bps), .least = 1, .most = RATE_MAX},
    {.name = "bps-burst", .kind = KEYVAL_SIZE, AT(bps_burst), .least = 1, .most = RATE_MAX},
    {.name = "serial", .kind = KEYVAL_TEXT, AT(serial)},
    {.name = "id", .kind = KEYVAL_TEXT, AT(id)},
    {.name = "queues", .kind = KEYVAL_NUMBER, AT(queues), .least = 1, .most = QUEUES_MAX},
    {.name = "direct", .kind = KEYVAL_FLAG, AT(direct)},
    {.name = "threads", .kind = KEYVAL_FLAG, AT(threads)},
    {.name = "backing", .kind = KEYVAL_LIST, AT(backing)},
    {.name = "timeout", .kind = KEYVAL_NUMBER, AT(timeout), .least = 1, .most = TIMEOUT_MAX},
    {.name = "space-warn", .kind = KEYVAL_TEXT, AT(space_warn)},
    {.name = "on-error", .kind = KEYVAL_CHOICE, AT(on_error), .choices = "report|pause|enospc"},
};

static const struct keyval_table table = {.what = "disk", .keys = keys, .n = ARRAY_SIZE(keys)};

/* It becomes a name below /dev/disk/by-id. */
static int check_serial(const char *serial, struct err *err)
{
    if (strlen(serial) > DISK_SERIAL_MAX)
        return err_set(err, -EINVAL, "disk: serial='%.60s': accepted are up to %d characters", serial, DISK_SERIAL_MAX);
    for (const char *p = serial; *p; p++)
        if (*p <= ' ' || *p > '~')
            return err_set(err, -EINVAL, "disk: serial='%.60s': accepted are printable ASCII characters but spaces",
                           serial);
    return 0;
}

void disk_spec_conf(const struct disk_spec *spec, struct disk_conf *conf)
{
    *conf = (struct disk_conf){
        .path = spec->path,
        .format = *spec->format ? spec->format : NULL,
        .read_only = spec->read_only,
        .discard = spec->discard,
        .direct = spec->direct,
        .threads = spec->threads,
        .timeout = (unsigned)spec->timeout,
    };
}

int disk_spec_allow(const struct disk_spec *spec, struct disk_allow **allow, struct err *err)
{
    const char *paths[KEYVAL_LIST_MAX];

    for (unsigned i = 0; i < spec->backing.n; i++)
        paths[i] = spec->backing.items[i];
    return disk_allow_open(allow, paths, spec->backing.n, err);
}

int disk_spec_parse(struct disk_spec *spec, const char *text, struct err *err)
{
    struct disk_conf conf;

    *spec = (struct disk_spec){.discard = true, .space_warn = DISK_SPACE_DEFAULT, .on_error = DISK_ON_ERROR_ENOSPC};
    int r = keyval_parse(&table, text, spec, err);
    if (r < 0)
        return r;
    r = check_serial(spec->serial, err);
    if (r < 0)
        return r;
    if ((spec->iops_burst && !spec->iops) || (spec->bps_burst && !spec->bps))
        return err_set(err, -EINVAL, "disk: %s needs %s", spec->iops_burst && !spec->iops ? "iops-burst" : "bps-burst",
                       spec->iops_burst && !spec->iops ? "iops" : "bps");
    if (!disk_space_parse(spec->space_warn, &spec->space))
        return err_set(
            err, -EINVAL,
            "disk: space-warn=%.60s: accepted are 0%% to 100%%, or a size in bytes or with a suffix K, M, G or T",
            spec->space_warn);
    disk_spec_conf(spec, &conf);
    return disk_check(&conf, err);
}
