/* The disk's side of a file that a server has: opens it, and hands requests to its thread and back. */
#include "disk/file_net.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/file_net_impl.h"
#include "disk/file_protocol.h"

static struct file_net *net_of(struct file *base)
{
    return CONTAINER_OF(base, struct file_net, base);
}

/* ---- from the disk's loop to the thread ---- */

static void hand_over(struct file_net *net, struct file_net_job *job)
{
    job->net = net;
    job->next = NULL;
    pthread_mutex_lock(&net->lock);
    *net->arrived_tail = job;
    net->arrived_tail = &job->next;
    pthread_mutex_unlock(&net->lock);
    loop_event_set(&net->arrival);
}

static void on_arrival(void *opaque)
{
    struct file_net *net = opaque;

    pthread_mutex_lock(&net->lock);
    struct file_net_job *job = net->arrived;
    net->arrived = NULL;
    net->arrived_tail = &net->arrived;
    pthread_mutex_unlock(&net->lock);
    while (job) {
        struct file_net_job *next = job->next;
        file_net_op_begin(net, job);
        job = next;
    }
    file_net_link_pump(net);
}

/* ---- and back ---- */

static void complete_later_locked(struct file_net *net, struct disk_request *req, int result)
{
    req->result = result;
    req->next = NULL;
    *net->done_tail = req;
    net->done_tail = &req->next;
    loop_event_set(&net->completion);
}

void file_net_finish(struct file_net *net, struct file_net_job *job)
{
    pthread_mutex_lock(&net->lock);
    if (job->waited_for) {
        job->done = true; /* and from now on its owner's */
    } else {
        complete_later_locked(net, job->req, job->error);
        free(job);
    }
    pthread_cond_broadcast(&net->fewer);
    pthread_mutex_unlock(&net->lock);
}

static void on_completion(void *opaque)
{
    struct file_net *net = opaque;

    pthread_mutex_lock(&net->lock);
    struct disk_request *req = net->done;
    net->done = NULL;
    net->done_tail = &net->done;
    for (struct disk_request *r = req; r; r = r->next)
        net->n_under_way--;
    pthread_mutex_unlock(&net->lock);
    while (req) {
        struct disk_request *next = req->next;
        disk_complete(req, req->result);
        req = next;
    }
}

/* ---- as file.h has it ---- */

static void submit(struct file *base, struct disk_request *req)
{
    struct file_net *net = net_of(base);
    struct file_net_job *job = calloc(1, sizeof(*job));

    pthread_mutex_lock(&net->lock);
    net->n_under_way++;
    if (!job)
        complete_later_locked(net, req, -ENOMEM);
    pthread_mutex_unlock(&net->lock);
    if (!job)
        return;
    job->req = req;
    job->what = req;
    hand_over(net, job);
}

static void wait_net(struct file *base)
{
    struct file_net *net = net_of(base);

    pthread_mutex_lock(&net->lock);
    bool any = net->n_under_way;
    while (any && !net->done)
        pthread_cond_wait(&net->fewer, &net->lock);
    pthread_mutex_unlock(&net->lock);
    if (any)
        on_completion(net);
}

static int wait_for(struct file_net *net, struct file_net_job *job)
{
    job->waited_for = true;
    hand_over(net, job);
    pthread_mutex_lock(&net->lock);
    while (!job->done)
        pthread_cond_wait(&net->fewer, &net->lock);
    pthread_mutex_unlock(&net->lock);
    return job->error;
}

static int call(struct file *base, const struct disk_request *req)
{
    struct file_net_job job = {.what = req};
    return wait_for(net_of(base), &job);
}

static int truncate_net(struct file *base, uint64_t size)
{
    struct file_net *net = net_of(base);
    const struct disk_request flush = {.op = DISK_FLUSH};

    if (!net->props.grows)
        return size <= base->size ? 0 : -ENOTSUP;
    /* What is sent again must not move the end back. */
    int r = size < base->size ? call(base, &flush) : 0;
    if (r < 0)
        return r;
    struct file_net_job job = {.truncate = size};
    return wait_for(net, &job);
}

/* ---- life ---- */

static void free_net(struct file_net *net)
{
    loop_event_fini(&net->completion);
    pthread_cond_destroy(&net->fewer);
    pthread_mutex_destroy(&net->lock);
    if (net->cancel_fd >= 0)
        close(net->cancel_fd);
    free(net);
}

struct first {
    struct file_net *net;
    struct err *err;
    int result;
};

static void do_first(void *opaque)
{
    struct first *first = opaque;
    first->result = file_net_link_first(first->net, first->err);
}

static void do_close(void *opaque)
{
    struct file_net *net = opaque;

    file_net_link_close(net);
    loop_event_fini(&net->arrival);
}

static void close_net(struct file *base)
{
    struct file_net *net = net_of(base);
    const struct disk_request flush = {.op = DISK_FLUSH};
    const uint64_t one = 1;

    int r = net->read_only ? 0 : call(base, &flush);
    if (r < 0)
        log_error("disk '%.200s': what was written last could not be flushed, and may be lost: %s", net->shown,
                  strerror(-r));
    ssize_t ignored = write(net->cancel_fd, &one, sizeof(one));
    (void)ignored;
    iothread_call(net->io, do_close, net);
    iothread_close(net->io);
    free_net(net);
}

static const struct file_type file_type = {
    .submit = submit, .wait = wait_net, .call = call, .truncate = truncate_net, .close = close_net};

static struct file_net *new_net(const struct file_net_type *type, const struct disk_conf *conf, struct loop *loop)
{
    struct file_net *net = calloc(1, sizeof(*net));

    if (!net)
        return NULL;
    net->base.type = &file_type;
    net->base.loop = loop;
    net->type = type;
    net->read_only = conf->read_only;
    net->no_lock = conf->no_lock;
    net->timeout = (int64_t)(conf->timeout ? conf->timeout : FILE_NET_TIMEOUT) * NS_PER_SEC;
    snprintf(net->path, sizeof(net->path), "%s", conf->path);
    file_protocol_show(conf->path, net->shown, sizeof(net->shown));
    net->arrived_tail = &net->arrived;
    net->done_tail = &net->done;
    pthread_mutex_init(&net->lock, NULL);
    pthread_cond_init(&net->fewer, NULL);
    loop_event_init(&net->completion, loop, on_completion, net);
    net->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return net;
}

int file_net_open(struct file **file, const struct file_net_type *type, const struct disk_conf *conf, struct loop *loop,
                  struct err *err)
{
    struct file_net *net = new_net(type, conf, loop);
    struct err own;
    int r;

    err = err ? err : &own;

    *file = NULL;
    if (!net)
        return err_set(err, -ENOMEM, "out of memory");
    if (net->cancel_fd < 0 || getrandom(&net->identity, sizeof(net->identity), 0) != sizeof(net->identity)) {
        r = err_set(err, -errno, "disk '%.200s': %s", net->shown, strerror(errno));
        goto free_net;
    }
    r = iothread_open(&net->io, "disk-net", err);
    if (r < 0)
        goto free_net;
    loop_event_init(&net->arrival, net->io->loop, on_arrival, net);
    file_net_link_init(net);
    struct first first = {.net = net, .err = err};
    iothread_call(net->io, do_first, &first);
    r = first.result;
    if (r < 0) {
        iothread_call(net->io, do_close, net);
        iothread_close(net->io);
        goto free_net;
    }
    *file = &net->base;
    return 0;

free_net:
    free_net(net);
    return r;
}

/* ---- for protocols ---- */

int file_net_poll(struct file_net_conn *conn, int fd, short events, int64_t deadline)
{
    struct file_net *net = conn->net;
    struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = net->cancel_fd, .events = POLLIN}};

    for (;;) {
        int64_t left = deadline - loop_now();
        if (left <= 0)
            return -ETIMEDOUT;
        int n = poll(fds, 2, (int)(left / NS_PER_MS) + 1);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0 && fds[1].revents)
            return -ECANCELED;
        if (n > 0)
            return fds[0].revents;
    }
}

bool file_net_writes(const struct file_net_conn *conn)
{
    return !conn->net->read_only;
}

bool file_net_locks(const struct file_net_conn *conn)
{
    return !conn->net->no_lock;
}

uint64_t file_net_identity(const struct file_net_conn *conn)
{
    return conn->net->identity;
}

bool file_net_again(const struct file_net_conn *conn)
{
    return conn->net->n_connections > 0;
}
