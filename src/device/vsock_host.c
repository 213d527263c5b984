/*
 * The host's end of the way to a connection: the socket at PATH with its CONNECT line, and those at PATH_<port>.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/number.h"
#include "device/vsock_impl.h"

#define BACKLOG        128
#define CLIENT_TIME_NS (60 * NS_PER_SEC) /* for its CONNECT line: somebody may type it */
#define RETRY_NS       (10 * NS_PER_MS)  /* where a host program's queue of connections is full */
#define PAUSE_NS       (100 * NS_PER_MS) /* in accepting, when the process is out of descriptors */
#define FIRST_PORT     0x40000000U       /* of the host's ends, as guests see them */
#define LAST_PORT      0x7fffffffU

int virtio_vsock_check_path(const char *path, struct err *err)
{
    size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof("_4294967295");

    if (strlen(path) > most)
        return err_set(
            err, -ENAMETOOLONG,
            "vsock: the socket's path '%.80s...' has %zu bytes; up to %zu are accepted, so that each port's fits too",
            path, strlen(path), most);
    return 0;
}

/* ---- host programs that come in ---- */

static void on_client(void *opaque, uint32_t events)
{
    struct vsock *vs = opaque;
    int fd = accept4(vs->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
        loop_fd_remove(vs->v.io->loop, &vs->listener);
        loop_timer_set(&vs->listen_timer, loop_now() + PAUSE_NS);
    }
    if (fd < 0)
        return;
    struct vsock_conn *c = vsock_conn_new(vs, fd, VSOCK_CLIENT);
    if (!c) {
        close(fd);
        return;
    }
    loop_timer_set(&c->timer, loop_now() + CLIENT_TIME_NS);
    vsock_conn_watch(c);
}

static void listen_again(void *opaque)
{
    struct vsock *vs = opaque;

    if (loop_fd_add(vs->v.io->loop, &vs->listener, EPOLLIN) < 0)
        loop_timer_set(&vs->listen_timer, loop_now() + PAUSE_NS);
}

/* On the iothread. */
static void listen_first(void *opaque)
{
    struct vsock *vs = opaque;

    vs->listener = (struct loop_fd){.fd = vs->socket.fd, .fn = on_client, .opaque = vs};
    loop_timer_init(&vs->listen_timer, vs->v.io->loop, listen_again, vs);
    listen_again(vs);
}

int vsock_host_open(struct vsock *vs, const char *path, struct err *err)
{
    int r = virtio_vsock_check_path(path, err);

    if (r < 0)
        return r;
    r = listen_unix(&vs->socket, path, err);
    if (r < 0) {
        err_prefix(err, "vsock");
        return r;
    }
    if (listen(vs->socket.fd, BACKLOG) < 0) {
        r = err_set(err, -errno, "vsock: '%s': %s", path, strerror(errno));
        listen_close(&vs->socket);
        return r;
    }
    memcpy(vs->path, path, strlen(path) + 1);
    vs->next_port = FIRST_PORT;
    iothread_call(vs->v.io, listen_first, vs);
    return 0;
}

/* On the iothread. */
void vsock_host_close(struct vsock *vs)
{
    loop_timer_cancel(&vs->listen_timer);
    loop_fd_remove(vs->v.io->loop, &vs->listener);
    listen_close(&vs->socket);
}

/* ---- the CONNECT line ---- */

/* Takes no byte behind the line's end: that is the stream's. 1: the line is there; 0: not yet; -errno: it will not come. */
static int read_line(struct vsock_conn *c)
{
    size_t room = sizeof(c->line) - c->line_len;
    char *to = c->line + c->line_len;
    ssize_t n = recv(c->source.fd, to, room, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return n < 0 ? -errno : -ECONNRESET;
    const char *end = memchr(to, '\n', (size_t)n);
    if (end)
        n = end - to + 1;
    n = recv(c->source.fd, to, (size_t)n, MSG_DONTWAIT);
    if (n <= 0)
        return -ECONNRESET;
    c->line_len += (unsigned)n;
    if (end)
        return 1;
    return c->line_len < sizeof(c->line) ? 0 : -EMSGSIZE;
}

/* "CONNECT <port>\n" */
static bool parse_line(struct vsock_conn *c, uint32_t *port)
{
    static const char word[] = "CONNECT ";
    uint64_t value;

    c->line[c->line_len - 1] = '\0';
    const char *p = c->line + sizeof(word) - 1;
    if (strncasecmp(c->line, word, sizeof(word) - 1) != 0 || !number_take(&p, &value) || *p || value > UINT32_MAX)
        return false;
    *port = (uint32_t)value;
    return true;
}

/* There are fewer connections than ports. */
static uint32_t free_port(struct vsock *vs, uint32_t guest_port)
{
    uint32_t port;

    do {
        port = vs->next_port;
        vs->next_port = port == LAST_PORT ? FIRST_PORT : port + 1;
    } while (vsock_conn_find(vs, guest_port, port));
    return port;
}

void vsock_host_event(struct vsock_conn *c)
{
    struct vsock *vs = c->vs;
    uint32_t port;
    int r = read_line(c);

    if (r == 0)
        return;
    if (r < 0 || !parse_line(c, &port) || !vs->started) {
        vsock_conn_free(c);
        return;
    }
    vsock_conn_bind(c, port, free_port(vs, port));
    c->state = VSOCK_REQUESTED;
    loop_timer_cancel(&c->timer);
    vsock_conn_wait(c);
    vsock_conn_owe(c, 1 << VSOCK_OP_REQUEST);
    vsock_conn_watch(c);
}

bool vsock_host_answer(struct vsock_conn *c)
{
    char line[VSOCK_LINE_MAX];
    int len = snprintf(line, sizeof(line), "OK %" PRIu32 "\n", c->host_port);

    return send(c->source.fd, line, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) == len;
}

/* ---- guests that go out ---- */

void vsock_host_retry(struct vsock_conn *c)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    /* vsock_host_open() has seen to it that it fits. */
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%.*s_%" PRIu32,
             (int)(sizeof(addr.sun_path) - sizeof("_4294967295")), c->vs->path, c->host_port);
    if (connect(c->source.fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0) {
        c->state = VSOCK_OPEN;
        vsock_conn_owe(c, 1 << VSOCK_OP_RESPONSE);
        vsock_conn_watch(c);
    } else if (errno == EAGAIN && loop_now() < c->give_up) {
        loop_timer_set(&c->timer, loop_now() + RETRY_NS);
    } else {
        vsock_conn_kill(c);
    }
}

void vsock_host_connect(struct vsock *vs, const struct vsock_header *h)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct vsock_conn *c = fd < 0 ? NULL : vsock_conn_new(vs, fd, VSOCK_CONNECTING);

    if (!c) {
        if (fd >= 0)
            close(fd);
        virtio_vsock_reply(vs, h);
        return;
    }
    vsock_conn_bind(c, h->src_port, h->dst_port);
    c->guest_buffer = h->buf_alloc;
    c->guest_forwarded = h->fwd_cnt;
    c->give_up = loop_now() + vs->patience_ns;
    vsock_host_retry(c);
}
