/*
 * The host's end of a QEMU guest agent's port: asks the agent in the guest to freeze its file systems and to thaw them. A chardev, as what sits at the
 * other end of any port; whoever asks does so from another loop.
 *
 * What answers is the guest, whatever it runs: a line of its is bounded, and so is the time that is waited for one. guest-sync-delimited comes before each
 * command, so that what it said before is not taken for the answer.
 *
 * Threads: the chardev on `loop`'s; the others on `asker`'s. Closed on the first while the second does not run.
 */
#ifndef CONSOLE_AGENT_H
#define CONSOLE_AGENT_H

#include "base/err.h"
#include "base/loop.h"
#include "core/chardev.h"

struct agent;

enum agent_command { AGENT_FREEZE, AGENT_THAW };

struct agent_answer {
    int result; /* 0; -ENOTCONN: nobody has the port open; -ENODATA: nobody answered; -ETIMEDOUT: the command got no answer; -EREMOTEIO */
    int64_t count;   /* of file systems */
    char error[128]; /* -EREMOTEIO: the agent's own words */
};

int agent_open(struct agent **agent, struct loop *loop, struct loop *asker, struct err *err) MUST_CHECK;
struct chardev *agent_chardev(struct agent *agent);

/* One at a time: -EBUSY. done() comes in any case, and after some seconds at the latest, unless agent_forget() comes before. */
int agent_ask(struct agent *agent, enum agent_command command,
              void (*done)(void *opaque, const struct agent_answer *answer), void *opaque) MUST_CHECK;
/* Nobody hears of the answer. */
void agent_forget(struct agent *agent);

#endif
