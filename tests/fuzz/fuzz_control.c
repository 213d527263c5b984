/*
 * What may come over the control socket, a request a line. The machine has its board and never runs. Lines that name what would reach the host's files,
 * programs or network are left out: attaching random numbers stands for all.
 */
#include <stdlib.h>

#include "control/request.h"
#include "fuzz.h"
#include "machine/q35.h"

static struct machine machine;

static int boot(struct vm *v, struct err *err)
{
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err = {0};
    const struct vm_conf conf = {.engine = engine_find("interp", &err),
                                 .ram_size = 4 * MIB,
                                 .ram_low_max = 2 * GIB,
                                 .n_vcpus = 1,
                                 .crystal_hz = 25000000};

    if (!conf.engine || vm_open(&machine.vm, &conf, &err))
        abort();
    machine.vm.boot = boot;
    machine.vm.machine = &machine;
    if (q35_open(&machine.board, &machine.vm, &(struct q35_conf){.ejected = attach_ejected, .opaque = &machine},
                 &err) ||
        attach_open(&machine, "rng", NULL, 0, NULL, &err))
        abort();
    return 0;
}

static bool reaches_out(const char *line, size_t len)
{
    static const char *const words[] = {"disk", "net", "share", "vsock", "port"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (memmem(line, len, words[i], strlen(words[i])))
            return true;
    return memchr(line, '\\', len); /* a word in disguise */
}

/* Answers are objects that say whether it went well, and fit a line. */
static void check(json_t *answer)
{
    char *text = json_dumps(answer, JSON_COMPACT);

    if (!text || strchr(text, '\n') || !json_is_boolean(json_object_get(answer, "ok")) ||
        json_is_true(json_object_get(answer, "ok")) != !json_object_get(answer, "error"))
        abort();
    free(text);
    json_decref(answer);
}

/* Nobody waits for it. */
static void answer_later(void *opaque, uint64_t ticket, json_t *result, const char *error)
{
    json_decref(result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct control_later later = {.answer = answer_later, .ticket = 1};
    struct request_pending pending = {0};
    const char *line = (const char *)data, *end = line + size;

    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((newline ? newline : end) - line);
        if (!reaches_out(line, len)) {
            json_t *answer = request_serve(&machine, line, len, &later, &pending);
            check(answer ? answer : request_finish(&pending, NULL, "gone"));
        }
        line += len + 1;
    }
    machine_resume(&machine);
    return 0;
}
