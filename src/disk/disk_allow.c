#include "disk/disk_allow.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk/file_protocol.h"

struct disk_allow {
    size_t n;
    char **items; /* absolute, links followed; or remote */
};

static int add(struct disk_allow *allow, const char *path)
{
    char real[PATH_MAX];

    if (!file_protocol_is(path)) {
        if (!realpath(path, real))
            return -errno;
        path = real;
    }
    char **items = realloc(allow->items, (allow->n + 1) * sizeof(*items));
    if (!items)
        return -ENOMEM;
    allow->items = items;
    items[allow->n] = strdup(path);
    if (!items[allow->n])
        return -ENOMEM;
    allow->n++;
    return 0;
}

/* What is not there permits nothing. */
static int add_list(struct disk_allow *allow, const char *path, struct err *err)
{
    FILE *list = fopen(path, "re");
    char line[4096];
    int r = 0;

    if (!list && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (!list)
        return err_set(err, -errno, "'%.200s': %s", path, strerror(errno));
    while (r == 0 && fgets(line, sizeof(line), list)) {
        line[strcspn(line, "#\n")] = '\0';
        char *start = line + strspn(line, " \t"), *end = start + strlen(start);
        while (end > start && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
            *--end = '\0';
        if (*start != '/' && !file_protocol_is(start))
            continue; /* relative to what? */
        r = add(allow, start);
        r = r == -ENOMEM ? r : 0;
    }
    fclose(list);
    return r ? err_set(err, r, "'%.200s': out of memory", path) : 0;
}

static int add_own_list(struct disk_allow *allow, struct err *err)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char path[4096];

    if (config && *config == '/')
        snprintf(path, sizeof(path), "%s/vireo/backing", config);
    else if (home && *home == '/')
        snprintf(path, sizeof(path), "%s/.config/vireo/backing", home);
    else
        return 0;
    return add_list(allow, path, err);
}

int disk_allow_open(struct disk_allow **out, const char *const *paths, size_t n, struct err *err)
{
    struct disk_allow *allow = calloc(1, sizeof(*allow));
    int r = 0;

    *out = NULL;
    if (!allow)
        return err_set(err, -ENOMEM, "backing files: out of memory");
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = add(allow, paths[i]);
        if (r)
            err_set(err, r, "backing file '%.200s': %s", paths[i], strerror(-r));
    }
    if (r == 0)
        r = add_list(allow, "/etc/vireo/backing", err);
    if (r == 0)
        r = add_own_list(allow, err);
    if (r) {
        disk_allow_close(allow);
        return r;
    }
    *out = allow;
    return 0;
}

void disk_allow_close(struct disk_allow *allow)
{
    if (!allow)
        return;
    for (size_t i = 0; i < allow->n; i++)
        free(allow->items[i]);
    free(allow->items);
    free(allow);
}

/* The item itself, or what lies below it. */
static bool covers(const char *item, const char *path)
{
    size_t n = strlen(item);

    if (strncmp(item, path, n) != 0)
        return false;
    return !path[n] || path[n] == '/' || item[n - 1] == '/' || (file_protocol_is(item) && path[n] == '?');
}

bool disk_allow_permits(const struct disk_allow *allow, const char *path)
{
    char real[PATH_MAX];

    if (!allow)
        return false;
    if (!file_protocol_is(path)) {
        if (!realpath(path, real))
            return false;
        path = real;
    } else if (strstr(path, "/../")) {
        return false;
    }
    for (size_t i = 0; i < allow->n; i++)
        if (file_protocol_is(allow->items[i]) == file_protocol_is(path) && covers(allow->items[i], path))
            return true;
    return false;
}
