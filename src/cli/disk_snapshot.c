/* `vireo disk snapshot`: internal snapshots of an image that no VM has open. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "disk/disk_snapshot.h"

#define MAX_INDENT 40 /* columns */

/* ---- list ---- */

static void format_time(int64_t time_ns, char text[32])
{
    time_t seconds = (time_t)(time_ns / NS_PER_SEC);
    struct tm tm;

    if (!localtime_r(&seconds, &tm) || !strftime(text, 32, "%Y-%m-%d %H:%M:%S", &tm))
        snprintf(text, 32, "-");
}

static void format_size(uint64_t bytes, char text[32])
{
    static const char units[] = "KMGTPE";
    double value = (double)bytes;
    int unit = -1;

    while (value >= 1024 && units[unit + 1]) {
        value /= 1024;
        unit++;
    }
    if (unit < 0)
        snprintf(text, 32, "%u", (unsigned)bytes);
    else
        snprintf(text, 32, value < 10 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

/* What a terminal may be shown of a name that an image has. */
static void show_name(char *to, size_t size, const char *from)
{
    size_t n = 0;

    for (; *from && n + 1 < size; from++)
        to[n++] = (unsigned char)*from < ' ' || *from == 0x7f ? '?' : *from;
    to[n] = '\0';
}

/* Of each snapshot its first child and the next one of its parent's; SIZE_MAX: none. */
struct tree {
    size_t first, *child, *sibling, *parent;
};

static size_t index_of(const struct disk_snapshots *list, const char *id)
{
    for (size_t i = 0; *id && i < list->n; i++)
        if (strcmp(list->items[i].id, id) == 0)
            return i;
    return SIZE_MAX;
}

static int build(struct tree *tree, const struct disk_snapshots *list)
{
    size_t *all = malloc((3 * list->n + 1) * sizeof(*all));

    if (!all)
        return -ENOMEM;
    *tree = (struct tree){.first = SIZE_MAX, .child = all, .sibling = all + list->n, .parent = all + 2 * list->n};
    for (size_t i = 0; i < list->n; i++)
        tree->child[i] = SIZE_MAX;
    for (size_t i = list->n; i-- > 0;) {
        size_t parent = index_of(list, list->items[i].parent);
        size_t *link = parent < i ? &tree->child[parent] : &tree->first;
        tree->parent[i] = parent < i ? parent : SIZE_MAX;
        tree->sibling[i] = *link;
        *link = i;
    }
    return 0;
}

static void print_one(const struct disk_snapshot *s, unsigned depth)
{
    char name[DISK_SNAPSHOT_NAME_MAX], time[32], size[32], state[32] = "-";
    int indent = depth * 2 < MAX_INDENT ? (int)depth * 2 : MAX_INDENT, width = indent < 30 ? 32 - indent : 2;

    show_name(name, sizeof(name), s->name);
    format_time(s->time_ns, time);
    format_size(s->disk_size, size);
    if (s->state_size)
        format_size(s->state_size, state);
    printf("%*s%-*s  %-6s  %-19s  %8s  %8s\n", indent, "", width, name, s->id, time, size, state);
}

static void print_here(unsigned depth)
{
    printf("%*s(the disk)\n", depth * 2 < MAX_INDENT ? (int)depth * 2 : MAX_INDENT, "");
}

static int print_tree(const struct disk_snapshots *list)
{
    size_t current = index_of(list, list->current);
    struct tree tree;
    unsigned depth = 0;

    if (!list->n) {
        puts("no snapshots");
        return 0;
    }
    if (build(&tree, list))
        return -ENOMEM;
    printf("%-32s  %-6s  %-19s  %8s  %8s\n", "name", "id", "time", "size", "state");
    for (size_t i = tree.first; i != SIZE_MAX;) {
        print_one(&list->items[i], depth);
        if (i == current)
            print_here(depth + 1);
        if (tree.child[i] != SIZE_MAX) {
            i = tree.child[i];
            depth++;
            continue;
        }
        while (i != SIZE_MAX && tree.sibling[i] == SIZE_MAX) {
            i = tree.parent[i];
            depth -= depth > 0;
        }
        i = i == SIZE_MAX ? i : tree.sibling[i];
    }
    free(tree.child);
    return 0;
}

static json_t *text_of(const char *text)
{
    char plain[DISK_SNAPSHOT_NAME_MAX];
    json_t *json = json_string(text);

    if (json) /* otherwise it is no UTF-8 */
        return json;
    show_name(plain, sizeof(plain), text);
    for (char *c = plain; *c; c++)
        *c = *c & 0x80 ? '?' : *c;
    return json_string(plain);
}

static int print_json(const struct disk *disk, const struct disk_snapshots *list)
{
    json_t *array = json_array();

    for (size_t i = 0; i < list->n; i++) {
        const struct disk_snapshot *s = &list->items[i];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o, s:f, s:I, s:I}", "id", text_of(s->id), "name", text_of(s->name), "parent",
                             *s->parent ? text_of(s->parent) : json_null(), "time", (double)s->time_ns / NS_PER_SEC,
                             "size", (json_int_t)s->disk_size, "state_size", (json_int_t)s->state_size));
    }
    return disk_command_print(json_pack("{s:o, s:o, s:o}", "path", text_of(disk->path), "current",
                                        *list->current ? text_of(list->current) : json_null(), "snapshots", array));
}

static int list_snapshots(struct disk *disk, bool json, struct err *err)
{
    struct disk_snapshots list;
    int r = disk_snapshot_list(disk, &list, err);

    if (r < 0)
        return r;
    if ((json ? print_json(disk, &list) : print_tree(&list)) < 0)
        r = err_set(err, -ENOMEM, "out of memory");
    free(list.items);
    return r;
}

/* ---- the command ---- */

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

enum verb { CREATE, REVERT, DELETE, LIST };

static int find_verb(const struct option_list *words, enum verb *verb, struct err *err)
{
    static const char *const verbs[] = {"create", "revert", "delete", "list"};
    unsigned i = 0;

    while (i < ARRAY_SIZE(verbs) && strcmp(words->items[0], verbs[i]) != 0)
        i++;
    if (i == ARRAY_SIZE(verbs))
        return err_set(err, -EINVAL, "disk snapshot '%.60s': accepted are create, revert, delete and list",
                       words->items[0]);
    *verb = (enum verb)i;
    if (words->n != (*verb == LIST ? 2 : 3))
        return err_set(err, -EINVAL, "disk snapshot %s: accepted is %s %s", verbs[i], verbs[i],
                       *verb == LIST ? "FILE" : "FILE NAME");
    return 0;
}

static int run(struct disk *disk, enum verb verb, const struct disk_snapshot_options *options, struct err *err)
{
    const char *name = options->words.items[2];

    switch (verb) {
    case CREATE:
        return disk_snapshot_create(disk, name, now_ns(), err);
    case REVERT:
        return disk_snapshot_revert(disk, name, err);
    case DELETE:
        return disk_snapshot_remove(disk, name, err);
    default:
        return list_snapshots(disk, options->json, err);
    }
}

int command_disk_snapshot(int argc, char **argv)
{
    struct disk_snapshot_options options = {0};
    struct loop *loop = NULL;
    struct disk *disk = NULL;
    enum verb verb = LIST;
    struct err err;
    int status;

    if (!disk_command_parse("snapshot", argc, argv, &options, 2, 3, &status))
        return status;
    int r = find_verb(&options.words, &verb, &err);
    const struct disk_conf conf = {.path = options.words.items[1],
                                   .format = options.format,
                                   .read_only = verb == LIST,
                                   .no_lock = verb == LIST,
                                   .discard = true,
                                   .no_backing = true};
    if (r == 0)
        r = loop_open(&loop, &err);
    if (r == 0)
        r = disk_open(&disk, &conf, loop, &err);
    if (r == 0)
        r = run(disk, verb, &options, &err);
    disk_close(disk);
    loop_close(loop);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
