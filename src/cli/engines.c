/* `vireo engines`: what can run guests here, the first choice first, a line each or as JSON. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/engines_options.h"
#include "cli/help.h"
#include "engine/survey.h"

#define MOST_ENGINES 16

/* "12 M instructions/s" */
static void print_rate(char *text, size_t len, uint64_t rate)
{
    snprintf(text, len, "%.*f M instructions/s", rate < 10000000 ? 1 : 0, (double)rate / 1e6);
}

static void print_lines(const struct survey *found, size_t n)
{
    char rate[64];

    for (size_t i = 0; i < n; i++) {
        const struct survey *s = &found[i];
        print_rate(rate, sizeof(rate), s->rate);
        printf("%-8s%-46s", s->name, s->kind);
        if (s->usable)
            printf("usable, %s%s\n", rate, s->preferred ? "; what auto takes" : "");
        else
            printf("not usable: %s\n", s->reason.msg);
    }
}

static json_t *as_json(const struct survey *s)
{
    json_t *object = json_object();

    json_object_set_new(object, "name", json_string(s->name));
    json_object_set_new(object, "kind", json_string(s->kind));
    json_object_set_new(object, "usable", json_boolean(s->usable));
    json_object_set_new(object, "auto", json_boolean(s->preferred));
    json_object_set_new(object, "instructions_per_second", s->rate ? json_integer((json_int_t)s->rate) : json_null());
    json_object_set_new(object, "reason", s->usable ? json_null() : json_string(s->reason.msg));
    return object;
}

static int print_json(const struct survey *found, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, as_json(&found[i]));
    char *text = json_dumps(array, JSON_INDENT(2));
    json_decref(array);
    if (!text)
        return -ENOMEM;
    puts(text);
    free(text);
    return 0;
}

int command_engines(int argc, char **argv)
{
    struct engines_options options = {0};
    struct survey found[MOST_ENGINES];
    struct err err;
    bool help;
    int r = option_parse(&engines_option_table, argc, argv, &options, &help, &err);

    if (r < 0)
        return command_fail(r, &err);
    if (help) {
        help_command(stdout, "engines");
        return STATUS_OK;
    }
    size_t n = survey_engines(found, ARRAY_SIZE(found));
    if (!options.json) {
        print_lines(found, n);
        return STATUS_OK;
    }
    r = print_json(found, n);
    if (r < 0)
        return command_fail(err_set(&err, r, "out of memory"), &err);
    return STATUS_OK;
}
