/*
 * The commands of the control socket, from commands.def. Each answers at once, or later: then the one who asked waits for control_answer().
 *
 * Threads: the loop's.
 */
#ifndef CONTROL_CONTROL_COMMAND_H
#define CONTROL_CONTROL_COMMAND_H

#include <jansson.h>

#include "machine/machine.h"

/* The most that commands.def says. */
#define CONTROL_COMMAND_MAX_ARGUMENTS 3

/* Where an answer goes that comes later; on the loop's thread, and never from within the command. Takes `result`, or NULL; error: one line, or NULL. */
struct control_later {
    void (*answer)(void *opaque, uint64_t ticket, json_t *result, const char *error);
    void *opaque;
    uint64_t ticket;
};

struct control_call {
    struct machine *machine;
    const char *arguments[CONTROL_COMMAND_MAX_ARGUMENTS];
    unsigned n;
    json_t *result;                 /* or NULL for none; the caller's */
    char detaching[ATTACH_ID_SIZE]; /* the answer comes when this attachment is gone; "" where it is there */
    struct control_later later;
    bool comes_later; /* the answer does, by `later` */
};

/* Runs the command called `name`. -errno, and one line, where it is unknown, has too many arguments or too few, or fails. */
int control_command_run(const char *name, struct control_call *call, struct err *err) MUST_CHECK;

#endif
