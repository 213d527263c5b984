/* See gdb_stub.h. */
#include "gdb/gdb_stub.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/listen.h"
#include "gdb/gdb_session.h"

#define NOWAIT ",nowait"

/* Bytes for a debugger that does not read: some replies. Beyond that it is cut off. */
#define OUT_MAX (4 * sizeof(struct gdb_packet))

struct gdb_stub {
    struct vm *vm;
    struct listen_socket socket;
    struct loop_fd listener; /* in the loop while nobody is connected */
    struct loop_fd client;   /* fd -1: nobody */
    char address[272];
    struct gdb_session session;
    size_t out_len; /* bytes that wait for the client to read */
    bool lost;      /* the connection is of no use any more */
    char out[OUT_MAX];
};

/* ---- "tcp:HOST:PORT", "unix:PATH", each with or without ",nowait" ---- */

struct spec {
    bool is_tcp, nowait;
    char host[256], port[8], path[256];
};

static int parse_tcp(struct spec *out, const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : 0;

    if (!colon || len >= sizeof(out->host))
        return -EINVAL;
    size_t digits = strspn(colon + 1, "0123456789");
    if (digits < 1 || digits > 5 || colon[1 + digits] || strtoul(colon + 1, NULL, 10) > 65535)
        return -EINVAL;
    snprintf(out->port, sizeof(out->port), "%s", colon + 1);
    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') { /* an IPv6 address */
        address++;
        len -= 2;
    }
    snprintf(out->host, sizeof(out->host), "%.*s", (int)len, address);
    return *out->host ? 0 : -EINVAL;
}

static int parse(struct spec *out, const char *text, struct err *err)
{
    char address[512];
    size_t len = strlen(text);
    int r = -EINVAL;

    *out = (struct spec){0};
    if (len >= strlen(NOWAIT) && strcmp(text + len - strlen(NOWAIT), NOWAIT) == 0) {
        out->nowait = true;
        len -= strlen(NOWAIT);
    }
    if ((size_t)snprintf(address, sizeof(address), "%.*s", (int)(len < sizeof(address) ? len : sizeof(address)), text) <
        sizeof(address)) {
        if (strncmp(address, "tcp:", 4) == 0) {
            out->is_tcp = true;
            r = parse_tcp(out, address + 4);
        } else if (strncmp(address, "unix:", 5) == 0 && address[5] && strlen(address + 5) < sizeof(out->path)) {
            snprintf(out->path, sizeof(out->path), "%s", address + 5);
            r = 0;
        }
    }
    return r < 0 ? err_set(err, r, "'%.100s': accepted is " GDB_STUB_ARGUMENT ", such as tcp:localhost:1234", text) : 0;
}

int gdb_stub_check(const char *text, struct err *err)
{
    struct spec spec;

    return parse(&spec, text, err);
}

/* ---- the connection ---- */

/* Sends what it takes now. */
static void flush(struct gdb_stub *stub)
{
    ssize_t n = send(stub->client.fd, stub->out, stub->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0) {
        stub->lost |= errno != EAGAIN && errno != EINTR;
        return;
    }
    stub->out_len -= (size_t)n;
    memmove(stub->out, stub->out + n, stub->out_len);
}

/* gdb_session's send. */
static void send_out(void *opaque, const void *data, size_t len)
{
    struct gdb_stub *stub = opaque;

    if (stub->client.fd < 0 || stub->lost)
        return;
    if (len > OUT_MAX - stub->out_len) {
        stub->lost = true;
        return;
    }
    memcpy(stub->out + stub->out_len, data, len);
    stub->out_len += len;
    flush(stub);
}

static void disconnect(struct gdb_stub *stub)
{
    loop_fd_remove(stub->vm->loop, &stub->client);
    close(stub->client.fd);
    stub->client.fd = -1;
    gdb_session_detach(&stub->session);
    if (loop_fd_add(stub->vm->loop, &stub->listener, EPOLLIN) < 0)
        stub->lost = true; /* nobody will connect any more; the VM goes on */
}

static void on_client(void *opaque, uint32_t events)
{
    struct gdb_stub *stub = opaque;
    uint8_t buf[4096];

    if (stub->out_len)
        flush(stub);
    ssize_t n = recv(stub->client.fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n > 0)
        gdb_session_input(&stub->session, buf, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        stub->lost = true;
    if (stub->lost || (stub->session.over && !stub->out_len)) {
        disconnect(stub);
        return;
    }
    if (loop_fd_modify(stub->vm->loop, &stub->client, EPOLLIN | (stub->out_len ? EPOLLOUT : 0)) < 0)
        disconnect(stub);
}

static void on_connection(void *opaque, uint32_t events)
{
    struct gdb_stub *stub = opaque;
    int one = 1, fd = accept4(stub->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    /* Small packets go back and forth: none may wait for another. A Unix socket knows no such option. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    stub->client = (struct loop_fd){.fd = fd, .fn = on_client, .opaque = stub};
    if (loop_fd_add(stub->vm->loop, &stub->client, EPOLLIN) < 0) {
        close(fd);
        stub->client.fd = -1;
        return;
    }
    loop_fd_remove(stub->vm->loop, &stub->listener);
    stub->out_len = 0;
    stub->lost = false;
    gdb_session_attach(&stub->session);
}

/* ---- life ---- */

static int open_socket(struct gdb_stub *stub, const struct spec *spec, struct err *err)
{
    int r = spec->is_tcp ? listen_tcp(&stub->socket, spec->host, spec->port, err)
                         : listen_unix(&stub->socket, spec->path, err);

    if (r < 0)
        return r;
    if (!spec->is_tcp)
        snprintf(stub->address, sizeof(stub->address), "%s", spec->path);
    else if (strchr(spec->host, ':'))
        snprintf(stub->address, sizeof(stub->address), "[%s]:%u", spec->host, listen_port(&stub->socket));
    else
        snprintf(stub->address, sizeof(stub->address), "%s:%u", spec->host, listen_port(&stub->socket));
    stub->listener = (struct loop_fd){.fd = stub->socket.fd, .fn = on_connection, .opaque = stub};
    r = loop_fd_add(stub->vm->loop, &stub->listener, EPOLLIN);
    if (r < 0) {
        err_set(err, r, "%s: %s", stub->address, strerror(-r));
        listen_close(&stub->socket);
    }
    return r;
}

int gdb_stub_open(struct gdb_stub **out, struct vm *vm, const char *text, struct err *err)
{
    struct spec spec;
    int r = parse(&spec, text, err);

    if (r < 0)
        return r;
    if (!vm->conf.engine->debug)
        return err_set(err, -ENOTSUP, "the engine %s cannot be debugged", vm->conf.engine->name);
    struct gdb_stub *stub = calloc(1, sizeof(*stub));
    if (!stub)
        return err_set(err, -ENOMEM, "out of memory");
    stub->vm = vm;
    stub->client.fd = -1;
    r = open_socket(stub, &spec, err);
    if (r < 0) {
        free(stub);
        return r;
    }
    gdb_session_init(&stub->session, vm, !spec.nowait, send_out, stub);
    *out = stub;
    return 0;
}

const char *gdb_stub_address(const struct gdb_stub *stub)
{
    return stub->address;
}

void gdb_stub_end(struct gdb_stub *stub, int status, int signal)
{
    gdb_session_end(&stub->session, status, signal);
}

void gdb_stub_close(struct gdb_stub *stub)
{
    if (!stub)
        return;
    if (stub->client.fd >= 0) {
        loop_fd_remove(stub->vm->loop, &stub->client);
        close(stub->client.fd);
    } else {
        loop_fd_remove(stub->vm->loop, &stub->listener);
    }
    listen_close(&stub->socket);
    free(stub);
}
