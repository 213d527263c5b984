/* `vireo disk`: finds the command in disk_commands.def and runs it; and what those commands share. */
#include "cli/disk.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/disk_options.h"
#include "cli/help.h"

static const struct {
    const char *name, *full_name;
    int (*run)(int argc, char **argv);
    const struct option_table *table;
} commands[] = {
#define DISK_COMMAND(name, summary) {#name, "disk " #name, command_disk_##name, &disk_##name##_option_table},
#include "cli/disk_commands.def"
#undef DISK_COMMAND
};

static int no_command(const char *word)
{
    const char *names[ARRAY_SIZE(commands)];
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        names[i] = commands[i].name;
    const char *near = word ? option_nearest(word, names, ARRAY_SIZE(names)) : NULL;
    if (!word)
        err_set(&err, -EINVAL, "disk: a command is missing; vireo disk --help lists them");
    else if (near)
        err_set(&err, -EINVAL, "disk '%.100s': no such command; did you mean %s?", word, near);
    else
        err_set(&err, -EINVAL, "disk '%.100s': no such command; vireo disk --help lists them", word);
    return command_fail(-EINVAL, &err);
}

int command_disk(int argc, char **argv)
{
    const char *word = argc ? argv[0] : NULL;

    if (word && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
        help_family(stdout, "disk");
        return STATUS_OK;
    }
    for (size_t i = 0; word && i < ARRAY_SIZE(commands); i++)
        if (strcmp(word, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return no_command(word);
}

/* ---- for the commands ---- */

static const struct option_list *words_in(const struct option_table *table, const void *values, const char **syntax)
{
    for (size_t i = 0; i < table->n; i++)
        if (table->specs[i].kind == OPTION_WORDS) {
            *syntax = table->specs[i].argument;
            return (const void *)((const char *)values + table->specs[i].offset);
        }
    return NULL;
}

bool disk_command_parse(const char *name, int argc, char **argv, void *values, unsigned least, unsigned most,
                        int *status)
{
    const struct option_table *table = NULL;
    const char *full_name = "", *syntax = "";
    struct err err;
    bool help;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, name) == 0) {
            table = commands[i].table;
            full_name = commands[i].full_name;
        }
    int r = option_parse(table, argc, argv, values, &help, &err);
    if (r == 0 && help) {
        help_command(stdout, full_name);
        *status = STATUS_OK;
        return false;
    }
    const struct option_list *words = words_in(table, values, &syntax);
    if (r == 0 && words && (words->n < least || words->n > most))
        r = err_set(&err, -EINVAL, "%s: %u word%s given; accepted is %s", full_name, words->n, words->n == 1 ? "" : "s",
                    syntax);
    *status = r < 0 ? command_fail(r, &err) : STATUS_OK;
    return r == 0;
}

int disk_command_allow(const struct option_list *backing, const char *more, struct disk_allow **allow, struct err *err)
{
    const char *paths[OPTION_LIST_MAX + 1];
    size_t n = backing->n;

    memcpy(paths, backing->items, n * sizeof(paths[0]));
    if (more)
        paths[n++] = more;
    return disk_allow_open(allow, paths, n, err);
}

/* Bytes of the character at `c`, if it is one to be shown; 0 otherwise (RFC 3629, section 4). */
static size_t shown(const unsigned char *c)
{
    size_t n = *c < 0x80                 ? 1
               : *c >= 0xc2 && *c < 0xe0 ? 2
               : *c >= 0xe0 && *c < 0xf0 ? 3
               : *c >= 0xf0 && *c < 0xf5 ? 4
                                         : 0;

    if (n == 1)
        return *c >= ' ' && *c != 0x7f;
    for (size_t i = 1; i < n; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    if ((*c == 0xc2 && c[1] < 0xa0) || (*c == 0xe0 && c[1] < 0xa0) || (*c == 0xed && c[1] > 0x9f) ||
        (*c == 0xf0 && c[1] < 0x90) || (*c == 0xf4 && c[1] > 0x8f))
        return 0;
    return n;
}

char *disk_command_clean(char *name)
{
    for (char *c = name; *c;) {
        size_t n = shown((unsigned char *)c);
        if (!n)
            *c = '?';
        c += n ? n : 1;
    }
    return name;
}

int disk_command_print(json_t *json)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_ENCODE_ANY) : NULL;

    json_decref(json);
    if (!text)
        return -ENOMEM;
    puts(text);
    free(text);
    return 0;
}
