#include "control/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/listen.h"
#include "control/backup_command.h"
#include "control/request.h"
#include "control/snapshot.h"

#define OUT_MAX      (4 * MIB) /* of answers that a client does not read */
#define DETACH_LIMIT (30 * NS_PER_SEC)

struct client {
    struct control *control;
    struct loop_fd source; /* fd -1: gone, and to be freed */
    struct client *next;
    char in[CONTROL_LINE_MAX];
    size_t in_len;
    char *out;
    size_t out_len;
    bool ending; /* nothing more is read; gone when all is sent */

    struct request_pending pending; /* what the client waits for */
    struct loop_timer patience;
};

struct control {
    struct machine *machine;
    struct loop *loop;
    struct listen_socket socket;
    struct loop_fd listener;
    bool listening; /* the listener is in the loop: there is room for one more client */
    struct client *clients;
    unsigned n_clients;
    uint64_t tickets; /* given so far */
};

/* ---- answers ---- */

static void flush(struct client *c)
{
    while (c->out_len) {
        ssize_t n = send(c->source.fd, c->out, c->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            c->ending = true;
            c->out_len = 0;
            return;
        }
        c->out_len -= (size_t)n;
        memmove(c->out, c->out + n, c->out_len);
    }
}

/* Takes what is one of request.h's. */
static void answer(struct client *c, json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    size_t len = text ? strlen(text) : 0;
    char *out = text && c->out_len + len < OUT_MAX ? realloc(c->out, c->out_len + len + 1) : NULL;

    json_decref(object);
    if (!out) {
        c->ending = true; /* it does not read what it asks for: gone, and what it has not read */
        c->out_len = 0;
    } else {
        c->out = out;
        memcpy(out + c->out_len, text, len);
        out[c->out_len + len] = '\n';
        c->out_len += len + 1;
    }
    free(text);
}

/* ---- requests ---- */

static void answer_later(void *opaque, uint64_t ticket, json_t *result, const char *error);

static bool waits(const struct client *c)
{
    return *c->pending.detaching || c->pending.ticket;
}

static void serve_line(struct client *c, const char *line, size_t len)
{
    const struct control_later later = {.answer = answer_later, .opaque = c->control, .ticket = ++c->control->tickets};
    json_t *object = request_serve(c->control->machine, line, len, &later, &c->pending);

    if (object)
        answer(c, object);
    else if (*c->pending.detaching)
        loop_timer_set(&c->patience, loop_now() + DETACH_LIMIT);
}

/* Whole lines, unless the client waits for an answer that is yet to come. */
static void serve_input(struct client *c)
{
    char *end;

    while (!c->ending && !waits(c) && (end = memchr(c->in, '\n', c->in_len))) {
        size_t len = (size_t)(end - c->in);
        if (len)
            serve_line(c, c->in, len);
        c->in_len -= len + 1;
        memmove(c->in, end + 1, c->in_len);
    }
    if (c->in_len == sizeof(c->in) && !waits(c)) {
        answer(c, request_error("a line is too long: accepted are 65535 bytes"));
        c->ending = true;
    }
}

/* ---- clients ---- */

static void listen_again(struct control *control)
{
    if (!control->listening && control->n_clients < CONTROL_MAX_CLIENTS)
        control->listening = loop_fd_add(control->loop, &control->listener, EPOLLIN) == 0;
}

static void drop(struct client *c)
{
    struct client **at = &c->control->clients;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->control->n_clients--;
    loop_timer_cancel(&c->patience);
    loop_fd_remove(c->control->loop, &c->source);
    close(c->source.fd);
    json_decref(c->pending.id);
    free(c->out);
    free(c);
}

/* After anything that may have made answers: sends, and asks for what is waited for next. Frees a client that has gone. */
static void settle(struct client *c)
{
    struct control *control = c->control;
    uint32_t events = 0;

    flush(c);
    if (c->out_len)
        events |= EPOLLOUT;
    if (!c->ending && c->in_len < sizeof(c->in))
        events |= EPOLLIN;
    if ((c->ending && !c->out_len) || loop_fd_modify(control->loop, &c->source, events) < 0) {
        drop(c);
        listen_again(control);
    }
}

static void on_client(void *opaque, uint32_t events)
{
    struct client *c = opaque;

    if (!c->ending && c->in_len < sizeof(c->in)) {
        ssize_t n = recv(c->source.fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);
        if (n > 0)
            c->in_len += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            c->ending = true;
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        c->ending = true;
        c->out_len = 0;
    }
    serve_input(c);
    settle(c);
}

/* Whoever waits for an attachment's end hears of it. */
static void on_detached(void *opaque, const char *id)
{
    struct control *control = opaque;

    for (struct client *c = control->clients, *next; c; c = next) {
        next = c->next;
        if (strcmp(c->pending.detaching, id) != 0)
            continue;
        loop_timer_cancel(&c->patience);
        answer(c, request_finish(&c->pending, NULL, NULL));
        serve_input(c);
        settle(c);
    }
}

/* Whoever asked may have gone. */
static void answer_later(void *opaque, uint64_t ticket, json_t *result, const char *error)
{
    struct control *control = opaque;
    struct client *c = control->clients;

    while (c && c->pending.ticket != ticket)
        c = c->next;
    if (!c) {
        json_decref(result);
        return;
    }
    answer(c, request_finish(&c->pending, result, error));
    serve_input(c);
    settle(c);
}

static void on_impatience(void *opaque)
{
    struct client *c = opaque;
    struct err err;

    if (!*c->pending.detaching)
        return;
    err_set(&err, -ETIMEDOUT, "the guest has not let go of '%s' in %d s; it may yet", c->pending.detaching,
            (int)(DETACH_LIMIT / NS_PER_SEC));
    answer(c, request_finish(&c->pending, NULL, err.msg));
    serve_input(c);
    settle(c);
}

static void on_connection(void *opaque, uint32_t events)
{
    struct control *control = opaque;
    int fd = accept4(control->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct client *c = fd >= 0 ? calloc(1, sizeof(*c)) : NULL;

    if (!c) {
        if (fd >= 0)
            close(fd);
        return;
    }
    c->control = control;
    c->source = (struct loop_fd){.fd = fd, .fn = on_client, .opaque = c};
    loop_timer_init(&c->patience, control->loop, on_impatience, c);
    if (loop_fd_add(control->loop, &c->source, EPOLLIN) < 0) {
        close(fd);
        free(c);
        return;
    }
    c->next = control->clients;
    control->clients = c;
    if (++control->n_clients == CONTROL_MAX_CLIENTS) {
        loop_fd_remove(control->loop, &control->listener);
        control->listening = false;
    }
}

/* ---- life ---- */

static const char *path_of(const char *spec)
{
    return strncmp(spec, "unix:", 5) == 0 && spec[5] ? spec + 5 : NULL;
}

int control_check(const char *spec, struct err *err)
{
    return path_of(spec) ? 0 : err_set(err, -EINVAL, "'%.100s': accepted is unix:PATH", spec);
}

int control_open(struct control **out, struct machine *machine, const char *spec, struct err *err)
{
    struct control *control = calloc(1, sizeof(*control));
    int r = control_check(spec, err);

    if (r < 0)
        goto free_control;
    if (!control)
        return err_set(err, -ENOMEM, "out of memory");
    control->machine = machine;
    control->loop = machine->vm.loop;
    r = listen_unix(&control->socket, path_of(spec), err);
    if (r < 0)
        goto free_control;
    control->listener = (struct loop_fd){.fd = control->socket.fd, .fn = on_connection, .opaque = control};
    r = loop_fd_add(control->loop, &control->listener, EPOLLIN);
    if (r < 0) {
        err_set(err, r, "'%s': %s", path_of(spec), strerror(-r));
        listen_close(&control->socket);
        goto free_control;
    }
    control->listening = true;
    machine->hooks = (struct machine_hooks){.detached = on_detached, .opaque = control};
    *out = control;
    return 0;

free_control:
    free(control);
    return r;
}

void control_close(struct control *control)
{
    if (!control)
        return;
    control->machine->hooks = (struct machine_hooks){0};
    snapshot_abandon(control->machine);
    backup_command_abandon(control->machine);
    while (control->clients) {
        flush(control->clients);
        drop(control->clients);
    }
    if (control->listening)
        loop_fd_remove(control->loop, &control->listener);
    listen_close(&control->socket);
    free(control);
}
