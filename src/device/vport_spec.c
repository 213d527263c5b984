#include "device/vport_spec.h"

#include <errno.h>
#include <stdio.h>

#include "device/virtio_console.h"

struct values {
    char name[KEYVAL_TEXT_MAX];
    bool console, stdio, pty, none, agent;
    char socket[KEYVAL_PATH_MAX], file[KEYVAL_PATH_MAX];
};

static const struct keyval_key keys[] = {
    {.name = "name", .kind = KEYVAL_TEXT, .offset = offsetof(struct values, name)},
    {.name = "console", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, console)},
    {.name = "unix", .kind = KEYVAL_PATH, .offset = offsetof(struct values, socket)},
    {.name = "file", .kind = KEYVAL_PATH, .offset = offsetof(struct values, file)},
    {.name = "pty", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, pty)},
    {.name = "stdio", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, stdio)},
    {.name = "agent", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, agent)},
    {.name = "none", .kind = KEYVAL_FLAG, .offset = offsetof(struct values, none)},
};

static const struct keyval_table table = {.what = "port", .keys = keys, .n = ARRAY_SIZE(keys)};

int vport_spec_parse(struct vport_spec *spec, const char *text, struct err *err)
{
    struct values v = {0};
    int r = keyval_parse(&table, text, &v, err);

    *spec = (struct vport_spec){0};
    if (r < 0)
        return r;
    if (v.agent && !*v.name)
        strcpy(v.name, VPORT_AGENT_NAME);
    if (!*v.name && !v.console)
        return err_set(err, -EINVAL, "port: '%.100s' needs name=NAME, or 'console'", text);
    r = *v.name ? virtio_console_check_name(v.name, err) : 0;
    if (r < 0)
        return r;
    if (!!*v.socket + !!*v.file + v.pty + v.stdio + v.none + v.agent != 1)
        return err_set(err, -EINVAL, "port: '%.100s' needs one of unix=PATH, file=PATH, pty, stdio, none, agent", text);
    memcpy(spec->name, v.name, sizeof(spec->name));
    spec->is_console = v.console;
    if (*v.socket)
        snprintf(spec->backend, sizeof(spec->backend), "unix:%s", v.socket);
    else if (*v.file)
        snprintf(spec->backend, sizeof(spec->backend), "file:%s", v.file);
    else
        strcpy(spec->backend, v.pty ? "pty" : v.agent ? VPORT_AGENT : v.stdio ? "stdio" : "none");
    return 0;
}
