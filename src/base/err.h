/*
 * An error message on its way to whoever reports it. Used on open, configuration and API paths only;
 * hot paths return 0 or -errno alone. The message names the thing, the value, and what would be accepted.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/util.h"

struct err {
    char msg[512];
};

/* Sets the message and returns `code` (a negative errno), so that callers can `return err_set(...)`. `err` may be NULL. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "context: " in front of what is there. */
void err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
