#include "console/console.h"

#include <errno.h>
#include <stdio.h>

struct backend {
    const char *name;
    int (*open)(struct chardev **dev, const struct console_conf *conf, struct err *err);
    const char *arg; /* "" or ":PATH" */
};

static const struct backend backends[] = {
#define CONSOLE(name, open, arg, help) {#name, open, arg},
#include "console/console.def"
#undef CONSOLE
};

/* "stdio, pty, file:PATH ..." */
static void list_backends(char *buf, size_t size)
{
    size_t at = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(backends) && at < size; i++) {
        const struct backend *b = &backends[i];
        at += (size_t)snprintf(buf + at, size - at, "%s%s%s", i ? ", " : "", b->name, b->arg);
    }
}

static int find(const char *spec, const struct backend **found, const char **arg, struct err *err)
{
    const char *colon = strchr(spec, ':');
    size_t len = colon ? (size_t)(colon - spec) : strlen(spec);
    char names[160];

    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        const struct backend *b = &backends[i];
        if (strlen(b->name) != len || memcmp(b->name, spec, len) != 0)
            continue;
        if (*b->arg ? !colon || !colon[1] : colon != NULL)
            break;
        *found = b;
        *arg = colon ? colon + 1 : NULL;
        return 0;
    }
    list_backends(names, sizeof(names));
    return err_set(err, -EINVAL, "console '%.100s' is none of %s", spec, names);
}

int console_check(const char *spec, struct err *err)
{
    const struct backend *backend;
    const char *arg;

    return find(spec, &backend, &arg, err);
}

int console_open(struct chardev **dev, const char *spec, struct loop *loop, const struct console_hooks *hooks,
                 struct err *err)
{
    struct console_conf conf = {.loop = loop, .hooks = hooks};
    const struct backend *backend;

    *dev = NULL;
    int r = find(spec, &backend, &conf.arg, err);
    return r < 0 ? r : backend->open(dev, &conf, err);
}
