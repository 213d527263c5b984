#include "console/agent.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 4096
#define SYNC_LIMIT     (3 * NS_PER_SEC)
#define COMMAND_LIMIT  (10 * NS_PER_SEC)
#define DELIMITER      0xff /* what guest-sync-delimited puts before its answer */

enum state { IDLE, SYNC, COMMAND };

struct agent {
    struct chardev chardev;
    struct loop *loop;

    /* The port's thread's. */
    enum state state;
    int64_t id; /* of the last sync */
    bool delimited, too_long;
    char line[LINE_MAX_BYTES];
    size_t line_len;
    char out[256];
    size_t out_len;
    struct loop_timer patience;
    struct loop_event ask;

    /* The asker's, but for the answer while `asked`. */
    bool asked;
    enum agent_command command;
    struct agent_answer answer;
    void (*done)(void *opaque, const struct agent_answer *answer);
    void *opaque;
    struct loop_event answered;
};

/* ---- the port's thread ---- */

static void finish(struct agent *a, int result)
{
    loop_timer_cancel(&a->patience);
    a->state = IDLE;
    a->out_len = 0;
    a->answer.result = result;
    loop_event_set(&a->answered);
}

static void push_out(struct agent *a)
{
    const struct chardev_receiver *to = &a->chardev.receiver;
    size_t n = a->out_len && to->can_receive ? to->can_receive(to->opaque) : 0;

    n = n < a->out_len ? n : a->out_len;
    if (!n)
        return;
    to->receive(to->opaque, (const uint8_t *)a->out, n);
    a->out_len -= n;
    memmove(a->out, a->out + n, a->out_len);
}

static void say(struct agent *a, const char *text, int64_t limit)
{
    size_t len = strlen(text);

    if (len > sizeof(a->out) - a->out_len)
        return; /* it does not read what it was sent before; time runs */
    memcpy(a->out + a->out_len, text, len);
    a->out_len += len;
    loop_timer_set(&a->patience, loop_now() + limit);
    push_out(a);
}

static void on_ask(void *opaque)
{
    struct agent *a = opaque;
    const struct chardev_receiver *to = &a->chardev.receiver;
    char text[128];

    a->answer = (struct agent_answer){0};
    a->out_len = 0;
    if (!to->can_receive || !to->can_receive(to->opaque)) {
        finish(a, -ENOTCONN);
        return;
    }
    a->state = SYNC;
    a->delimited = false;
    snprintf(text, sizeof(text), "\xff{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": %lld}}\n",
             (long long)++a->id);
    say(a, text, SYNC_LIMIT);
}

static void on_impatience(void *opaque)
{
    struct agent *a = opaque;

    if (a->state != IDLE)
        finish(a, a->state == SYNC ? -ENODATA : -ETIMEDOUT);
}

static void take_answer(struct agent *a, const json_t *json)
{
    const json_t *value = json_object_get(json, "return"), *error = json_object_get(json, "error");
    const char *why = json_string_value(json_object_get(error, "desc"));

    if (a->state == SYNC) {
        if (!a->delimited || json_integer_value(value) != a->id)
            return;
        a->state = COMMAND;
        say(a,
            a->command == AGENT_FREEZE ? "{\"execute\": \"guest-fsfreeze-freeze\"}\n"
                                       : "{\"execute\": \"guest-fsfreeze-thaw\"}\n",
            COMMAND_LIMIT);
    } else if (error) {
        snprintf(a->answer.error, sizeof(a->answer.error), "%s", why ? why : "no reason");
        for (char *c = a->answer.error; *c; c++)
            *c = *c < ' ' || *c == 0x7f ? '?' : *c; /* nor is a character cut in two any harm then */
        finish(a, -EREMOTEIO);
    } else if (json_is_integer(value)) {
        a->answer.count = json_integer_value(value);
        finish(a, 0);
    }
}

static void take_line(struct agent *a)
{
    if (a->state == IDLE || a->too_long)
        return;
    json_t *json = json_loadb(a->line, a->line_len, 0, NULL);
    if (json_is_object(json))
        take_answer(a, json);
    json_decref(json);
}

static size_t from_guest(struct chardev *dev, const uint8_t *buf, size_t len)
{
    struct agent *a = (struct agent *)dev;

    for (size_t i = 0; i < len; i++) {
        if (buf[i] == DELIMITER || buf[i] == '\n') {
            if (buf[i] == '\n')
                take_line(a);
            a->delimited = buf[i] == DELIMITER;
            a->too_long = false;
            a->line_len = 0;
        } else if (a->line_len < sizeof(a->line)) {
            a->line[a->line_len++] = (char)buf[i];
        } else {
            a->too_long = true;
        }
    }
    return len;
}

static size_t room(struct chardev *dev)
{
    return CHARDEV_BUFFER;
}

static void accept_input(struct chardev *dev)
{
    push_out((struct agent *)dev);
}

static void close_agent(struct chardev *dev)
{
    struct agent *a = (struct agent *)dev;

    loop_timer_cancel(&a->patience);
    loop_event_fini(&a->ask);
    loop_event_fini(&a->answered);
    free(a);
}

/* ---- the asker's ---- */

static void on_answered(void *opaque)
{
    struct agent *a = opaque;
    void (*done)(void *opaque, const struct agent_answer *answer) = a->done;
    struct agent_answer answer = a->answer;

    a->asked = false;
    a->done = NULL;
    if (done)
        done(a->opaque, &answer);
}

int agent_ask(struct agent *a, enum agent_command command,
              void (*done)(void *opaque, const struct agent_answer *answer), void *opaque)
{
    if (a->asked)
        return -EBUSY;
    a->asked = true;
    a->command = command;
    a->done = done;
    a->opaque = opaque;
    loop_event_set(&a->ask);
    return 0;
}

void agent_forget(struct agent *a)
{
    a->done = NULL;
}

/* ---- life ---- */

static const struct chardev_ops agent_ops = {
    .name = "agent",
    .write = from_guest,
    .room = room,
    .accept_input = accept_input,
    .close = close_agent,
};

int agent_open(struct agent **agent, struct loop *loop, struct loop *asker, struct err *err)
{
    struct agent *a = calloc(1, sizeof(*a));

    *agent = NULL;
    if (!a)
        return err_set(err, -ENOMEM, "port: out of memory");
    a->chardev.ops = &agent_ops;
    a->loop = loop;
    a->id = loop_now() & 0x7fffffff; /* not one that was asked for before this VM was restored or its agent started */
    loop_timer_init(&a->patience, loop, on_impatience, a);
    loop_event_init(&a->ask, loop, on_ask, a);
    loop_event_init(&a->answered, asker, on_answered, a);
    *agent = a;
    return 0;
}

struct chardev *agent_chardev(struct agent *a)
{
    return &a->chardev;
}
