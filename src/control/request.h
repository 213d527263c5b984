/*
 * One line of the control socket: from JSON to a command, and to its answer. Knows no socket.
 *
 * Threads: the loop's.
 */
#ifndef CONTROL_REQUEST_H
#define CONTROL_REQUEST_H

#include "control/control_command.h"

/* A request whose answer is yet to come. */
struct request_pending {
    char detaching[ATTACH_ID_SIZE]; /* the attachment whose end is waited for; "": nothing is */
    json_t *id;                     /* the request's, or NULL */
};

/*
 * Carries out the request in `line` and returns its answer; or NULL, with *pending filled in, where the command takes until an attachment has gone.
 * What is no request gets an error for an answer.
 */
json_t *request_serve(struct machine *machine, const char *line, size_t len, struct request_pending *pending);

/* An answer, and an end to what was pending: with an error, or without one when it is NULL. */
json_t *request_finish(struct request_pending *pending, const char *error);

/* An error for what is not even a line. */
json_t *request_error(const char *message);

#endif
