/*
 * The connection of a file that a server has: made, found broken, made again; and the patience of requests that wait for it.
 *
 * On the file's thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/file_net_impl.h"

#define ATTEMPT     (10 * NS_PER_SEC) /* no connection takes as long to be made */
#define TICK        (100 * NS_PER_MS)
#define IDLE_TICK   NS_PER_SEC
#define BACKOFF_MIN (100 * NS_PER_MS)
#define BACKOFF_MAX (5 * NS_PER_SEC)
#define EXTENSIONS  3 /* of a request's patience: one for each connection, as sending again takes its time */

#define BLOCK_MAX    (64 * KIB)
#define TRANSFER_MAX (1 * MIB)

/* ---- what a server says ---- */

/* What it says at all; sizes that nobody has are lies or errors. */
static int check_props(struct file_net_conn *conn, struct err *err)
{
    struct file_net_props *p = &conn->props;

    if (p->size > INT64_MAX)
        return err_set(err, -EINVAL, "the server says that it has %" PRIu64 " bytes", p->size);
    if (p->block == 0 || p->block > BLOCK_MAX || (p->block & (p->block - 1)))
        return err_set(err, -EINVAL, "the server wants blocks of %u bytes; accepted are powers of two up to %u",
                       p->block, (unsigned)BLOCK_MAX);
    if (p->max_transfer < p->block || p->max_transfer < 512)
        return err_set(err, -EINVAL, "the server takes %u bytes at most; accepted is a block and 512 bytes at least",
                       p->max_transfer);
    if (p->read_only && file_net_writes(conn))
        return err_set(err, -EROFS, "the server lets nobody write to it; readonly asks only for the right to read");
    p->max_transfer = p->max_transfer < TRANSFER_MAX ? p->max_transfer : TRANSFER_MAX;
    p->max_transfer -= p->max_transfer % p->block;
    p->max_range = p->max_range < p->block ? p->block : p->max_range - p->max_range % p->block;
    return 0;
}

/* What it may not say at another time. */
static int compare_props(const struct file_net *net, const struct file_net_props *p, struct err *err)
{
    const struct file_net_props *first = &net->props;
    uint64_t size = net->base.size;
    bool same = p->size == size || (first->grows && p->size >= net->safe_size && p->size < size);

    if (!same)
        return err_set(err, -EINVAL,
                       "the server is back with %" PRIu64 " bytes where it had %" PRIu64 ": it is refused", p->size,
                       size);
    if (p->id != first->id)
        return err_set(err, -EINVAL, "the server is back with another file in this one's place: it is refused");
    if (p->block > first->block || (first->zeroes && !p->zeroes) || (first->discards && !p->discards) ||
        (first->volatile_cache && !p->volatile_cache) || (first->maps && !p->maps) || first->grows != p->grows)
        return err_set(err, -EINVAL, "the server is back, and cannot do what it could: it is refused");
    return 0;
}

/* ---- the descriptor in the loop ---- */

static void on_ready(void *opaque, uint32_t events)
{
    struct file_net *net = opaque;
    struct file_net_conn *conn = net->conn;
    short ready = (short)((events & EPOLLIN ? POLLIN : 0) | (events & EPOLLOUT ? POLLOUT : 0) |
                          (events & EPOLLHUP ? POLLHUP : 0) | (events & EPOLLERR ? POLLERR : 0));

    int r = conn->type->service(conn, ready);
    if (r < 0) {
        const char *why = conn->type->why ? conn->type->why(conn) : NULL;
        file_net_link_break(net, why ? why : strerror(-r));
    }
    file_net_link_pump(net);
}

static void remove_source(struct file_net *net)
{
    if (net->source_added)
        loop_fd_remove(net->io->loop, &net->source);
    net->source_added = false;
}

static int watch(struct file_net *net)
{
    short wanted = 0;
    int fd = net->conn->type->fd(net->conn, &wanted), r = 0;
    uint32_t events = (wanted & POLLIN ? EPOLLIN : 0) | (wanted & POLLOUT ? EPOLLOUT : 0);

    if (net->source_added && fd == net->source.fd && wanted == net->source_events)
        return 0;
    if (net->source_added && fd == net->source.fd) {
        r = loop_fd_modify(net->io->loop, &net->source, events);
    } else {
        remove_source(net);
        net->source = (struct loop_fd){.fd = fd, .fn = on_ready, .opaque = net};
        r = loop_fd_add(net->io->loop, &net->source, events);
        net->source_added = r == 0;
    }
    net->source_events = wanted;
    return r;
}

/* ---- up and down ---- */

static void close_conn(struct file_net *net)
{
    if (!net->conn)
        return;
    remove_source(net);
    net->conn->type->close(net->conn);
    free(net->conn);
    net->conn = NULL;
}

void file_net_link_break(struct file_net *net, const char *why)
{
    int64_t now = loop_now();

    if (net->state == FILE_NET_DOWN)
        return;
    log_warn("disk '%.200s': the connection is broken (%.150s); requests wait up to %u s while it is made again",
             net->shown, why, (unsigned)(net->timeout / NS_PER_SEC));
    snprintf(net->reason, sizeof(net->reason), "%s", why);
    if (net->fence < 0 && net->type->fence)
        net->fence = net->type->fence(net->conn);
    close_conn(net);
    file_net_send_reset(net);
    net->state = FILE_NET_DOWN;
    net->down_since = now;
    net->next_attempt = now + net->backoff;
    net->backoff = net->backoff ? net->backoff : BACKOFF_MIN;
}

/* One attempt: net->conn, or -errno. */
static int attempt(struct file_net *net, struct err *err)
{
    int64_t patience = net->timeout < ATTEMPT ? net->timeout : ATTEMPT;
    struct file_net_conn *conn = calloc(1, net->type->size);

    if (!conn)
        return err_set(err, -ENOMEM, "out of memory");
    conn->type = net->type;
    conn->net = net;
    net->conn = conn;
    int r = conn->type->open(conn, net->path, loop_now() + patience, err);
    if (r == 0)
        r = check_props(conn, err);
    if (r == 0 && net->n_connections)
        r = compare_props(net, &conn->props, err);
    if (r < 0) {
        close_conn(net);
        return r;
    }
    net->n_connections++;
    net->epoch = conn->props.epoch ? conn->props.epoch : net->n_connections;
    return 0;
}

static void extend(struct file_net *net, struct file_net_list *list, int64_t until)
{
    for (struct file_net_op *op = list->first; op; op = op->next)
        if (op->deadline < until && op->extended < EXTENSIONS) {
            op->deadline = until;
            op->extended++;
        }
}

static void go_up(struct file_net *net)
{
    int64_t now = loop_now();
    unsigned kept = 0;

    for (struct file_net_op *op = net->kept.first; op; op = op->next) {
        op->error = 0;
        kept += op->epoch != net->epoch;
    }
    log_notice("disk '%.200s': connected again after %.1f s; %u writes that no flush had covered are sent again",
               net->shown, (double)(now - net->down_since) / NS_PER_SEC, kept);
    extend(net, &net->todo, now + net->timeout / 2);
    net->state = kept ? FILE_NET_REPLAY : FILE_NET_UP;
    net->down_since = 0;
    net->told_gone = false;
    net->last_progress = now;
}

static void close_fence(struct file_net *net)
{
    if (net->fence >= 0)
        close(net->fence);
    net->fence = -1;
}

/* Whether the server has let go of the last connection: replies that it still sends concern nobody. 0, or -EAGAIN. */
static int look_at_fence(struct file_net *net, struct err *err)
{
    static const char late[] =
        "the server has not let go of the connection before, and may still write what came by it";
    char buf[4096];
    ssize_t n = 1;

    for (unsigned i = 0; net->fence >= 0 && i < 256 && n > 0; i++) {
        n = recv(net->fence, buf, sizeof(buf), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            close_fence(net);
    }
    return net->fence < 0 ? 0 : err_set(err, -EAGAIN, "%s", late);
}

static void try_again(struct file_net *net)
{
    struct err err;

    net->last_attempt = loop_now();
    int r = look_at_fence(net, &err);
    if (r == 0)
        r = attempt(net, &err);
    net->attempts++;
    if (r == 0) {
        go_up(net);
        return;
    }
    if (strncmp(net->reason, err.msg, sizeof(net->reason) - 1) != 0) {
        log_warn("disk '%.200s': %.250s", net->shown, err.msg);
        snprintf(net->reason, sizeof(net->reason), "%.255s", err.msg);
    }
    net->next_attempt = loop_now() + net->backoff;
    net->backoff = net->backoff * 2 < BACKOFF_MAX ? net->backoff * 2 : BACKOFF_MAX;
}

/* ---- patience ---- */

/* While the link is down, a request is there for one attempt at least. */
static void fail_late(struct file_net *net, int64_t now)
{
    for (struct file_net_op *op = net->todo.first, *next; op; op = next) {
        next = op->next;
        if (now < op->deadline || (net->state == FILE_NET_DOWN && op->attempts == net->attempts))
            continue;
        file_net_op_remove(&net->todo, op);
        if (!op->job)
            net->flush_sent = false;
        file_net_op_answer(net, op, -ETIMEDOUT);
        file_net_op_free(op);
    }
}

static bool late(const struct file_net *net, int64_t now)
{
    for (const struct file_net_op *op = net->busy.first; op; op = op->next)
        if (now >= op->deadline)
            return true;
    return net->n_pieces && now - net->last_progress > net->timeout / 2;
}

static void look_after(struct file_net *net, int64_t now)
{
    if (net->state != FILE_NET_DOWN) {
        int r = net->type->tick ? net->type->tick(net->conn, now) : 0;
        if (r < 0)
            file_net_link_break(net, strerror(-r));
        else if (late(net, now))
            file_net_link_break(net, "the server does not answer");
    }
    /* Whoever comes when it has been gone for long waits for one attempt, which is made now. */
    const struct file_net_op *first = net->todo.first;
    if (net->state == FILE_NET_DOWN && first && first->deadline <= now && first->attempts == net->attempts &&
        now - net->last_attempt >= BACKOFF_MIN)
        net->next_attempt = now;
    if (net->state == FILE_NET_DOWN && now >= net->next_attempt)
        try_again(net);
    now = loop_now();
    fail_late(net, now);
    if (net->state == FILE_NET_DOWN && now - net->down_since >= net->timeout && !net->told_gone) {
        net->told_gone = true;
        log_error("disk '%.200s': not reached for %u s (%.150s); its requests fail until it is", net->shown,
                  (unsigned)(net->timeout / NS_PER_SEC), net->reason);
    }
}

static void set_tick(struct file_net *net)
{
    bool busy = net->state != FILE_NET_UP || net->todo.first || net->busy.first;

    if (busy || net->type->tick)
        loop_timer_set(&net->tick, loop_now() + (busy ? TICK : IDLE_TICK));
}

void file_net_link_pump(struct file_net *net)
{
    if (net->closing)
        return;
    for (;;) {
        look_after(net, loop_now());
        if (net->state == FILE_NET_DOWN)
            break;
        if (file_net_send(net) && watch(net) == 0)
            break;
        const char *why = net->type->why ? net->type->why(net->conn) : NULL;
        file_net_link_break(net, why ? why : "the server has closed it");
    }
    set_tick(net);
}

static void pump(void *opaque)
{
    file_net_link_pump(opaque);
}

/* ---- life ---- */

void file_net_link_init(struct file_net *net)
{
    net->todo.tail = &net->todo.first;
    net->busy.tail = &net->busy.first;
    net->kept.tail = &net->kept.first;
    net->fence = -1;
    loop_timer_init(&net->tick, net->io->loop, pump, net);
    loop_event_init(&net->pump, net->io->loop, pump, net);
}

int file_net_link_first(struct file_net *net, struct err *err)
{
    int64_t until = loop_now() + net->timeout;
    int r = attempt(net, err);

    /* A server that says "later" is there. */
    for (bool told = false; r == -EAGAIN && loop_now() < until; told = true) {
        if (!told)
            log_notice("disk '%.200s': %.250s", net->shown, err->msg);
        nanosleep(&(struct timespec){.tv_nsec = BACKOFF_MIN * 3}, NULL);
        r = attempt(net, err);
    }
    if (r < 0) {
        err_prefix(err, "disk '%.200s'", net->shown);
        return r;
    }
    net->props = net->conn->props;
    net->base.size = net->safe_size = net->props.size;
    net->state = FILE_NET_UP;
    if (!net->props.volatile_cache && !net->read_only)
        log_info("disk '%.200s': the server has no flush: what it acknowledges it must have made durable", net->shown);
    r = watch(net);
    if (r < 0)
        return err_set(err, r, "disk '%.200s': %s", net->shown, strerror(-r));
    set_tick(net);
    return 0;
}

static void free_list(struct file_net_list *list)
{
    while (list->first) {
        struct file_net_op *op = list->first;
        list->first = op->next;
        file_net_op_free(op);
    }
}

void file_net_link_close(struct file_net *net)
{
    net->closing = true;
    close_conn(net);
    close_fence(net);
    file_net_send_reset(net);
    loop_timer_cancel(&net->tick);
    loop_event_fini(&net->pump);
    free_list(&net->todo);
    free_list(&net->kept);
    while (net->free_pieces) {
        struct file_net_piece *piece = net->free_pieces;
        net->free_pieces = piece->next;
        free(piece);
    }
}
