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
    uint64_t ticket;                /* of an answer that comes by control_later; 0: none does */
    json_t *id;                     /* the request's, or NULL */
};

/*
 * Carries out the request in `line` and returns its answer; or NULL, with *pending filled in, where the command takes until an attachment has gone, or answers by `later`.
 * What is no request gets an error for an answer.
 */
json_t *request_serve(struct machine *machine, const char *line, size_t len, const struct control_later *later,
                      struct request_pending *pending);

/* An answer, and an end to what was pending: with an error, or where that is NULL with a result, which it takes and which may be NULL too. */
json_t *request_finish(struct request_pending *pending, json_t *result, const char *error);

/* An error for what is not even a line. */
json_t *request_error(const char *message);

#endif
