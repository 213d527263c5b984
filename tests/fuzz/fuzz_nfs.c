/*
 * What an NFS server may reply. This stands in for file_net.c and for the server, over loopback. First byte: bit 0, the file was open before; bit 1, it is only read;
 * bit 2, the rest is all that the server sends, as it stands. Otherwise records: a length (two bytes, little-endian; its topmost bit: in fragments of 7 bytes) and
 * what follows the RPC header of an accepted reply. They answer the calls in the order in which those come.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/file_net.h"
#include "disk/file_protocol.h"
#include "fuzz.h"

#define MUST(x)   ((x) ? (void)0 : abort())
#define MAX_CALLS 256

static struct server {
    int listener, fd;
    struct sockaddr_in address;
    const uint8_t *data;
    size_t size, at;
    uint8_t how;
    uint8_t head[8]; /* of the call that comes: its mark and its xid */
    size_t head_len, skip;
    uint32_t xids[MAX_CALLS];
    unsigned n_xids, answered;
    bool over; /* nothing more comes */
} server;

static const struct file_net_type *type;

/* ---- in place of file_net.c ---- */

int file_net_open(struct file **file, const struct file_net_type *of, const struct disk_conf *conf, struct loop *loop,
                  struct err *err)
{
    type = of;
    return 0;
}

bool file_net_writes(const struct file_net_conn *conn)
{
    return !(server.how & 2);
}

bool file_net_locks(const struct file_net_conn *conn)
{
    return true;
}

uint64_t file_net_identity(const struct file_net_conn *conn)
{
    return 1;
}

bool file_net_again(const struct file_net_conn *conn)
{
    return server.how & 1;
}

void file_net_done(struct file_net_piece *piece, int result)
{
    MUST(!piece->finished);
    piece->finished = true;
    piece->result = result;
}

/* ---- the server ---- */

static void put(const void *data, size_t len)
{
    if (send(server.fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
        server.over = true;
}

/* The calls' xids. */
static void hear(void)
{
    uint8_t buf[4096];
    ssize_t n;

    while ((n = recv(server.fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            if (server.skip) {
                server.skip--;
                continue;
            }
            server.head[server.head_len++] = buf[i];
            if (server.head_len < sizeof(server.head))
                continue;
            uint32_t mark;
            memcpy(&mark, server.head, 4);
            MUST(ntohl(mark) & 0x80000000);
            server.skip = (ntohl(mark) & 0x7fffffff) - 4;
            server.head_len = 0;
            if (server.n_xids < MAX_CALLS)
                memcpy(&server.xids[server.n_xids++], server.head + 4, 4);
        }
}

static void put_fragments(const uint8_t *message, size_t len, size_t most)
{
    for (size_t at = 0; at < len;) {
        size_t n = len - at < most ? len - at : most;
        uint32_t mark = htonl((uint32_t)n | (at + n == len ? 0x80000000 : 0));
        put(&mark, 4);
        put(message + at, n);
        at += n;
    }
}

static void answer(uint32_t xid)
{
    static uint8_t message[24 + 0x8000];
    const uint32_t header[] = {xid, htonl(1), 0, 0, 0, 0};
    size_t left = server.size - server.at;

    if (left < 2) {
        server.over = true;
        return;
    }
    unsigned word = server.data[server.at] | (unsigned)server.data[server.at + 1] << 8;
    size_t len = word & 0x7fff;
    server.at += 2;
    len = len < left - 2 ? len : left - 2;
    memcpy(message, header, sizeof(header));
    memcpy(message + sizeof(header), server.data + server.at, len);
    server.at += len;
    put_fragments(message, sizeof(header) + len, word & 0x8000 ? 7 : sizeof(message));
}

static void serve(void)
{
    const int on = 1;

    if (server.fd < 0) {
        server.fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
        if (server.fd >= 0)
            setsockopt(server.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    if (server.fd < 0 || server.over)
        return;
    hear();
    if (server.how & 4) {
        put(server.data + server.at, server.size - server.at);
        server.over = true;
        return;
    }
    while (server.answered < server.n_xids && !server.over)
        answer(server.xids[server.answered++]);
    server.over = server.over || server.at >= server.size;
}

int file_net_poll(struct file_net_conn *conn, int fd, short events, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};
    int n = 0;

    for (unsigned i = 0; i < 100 && n == 0; i++) { /* the loopback may take a moment */
        serve();
        if (server.over && server.fd >= 0)
            shutdown(server.fd, SHUT_WR);
        n = poll(&p, 1, 1);
    }
    return n > 0 ? p.revents : -ETIMEDOUT;
}

/* ---- a file ---- */

#define N_PIECES 5

static void work(struct file_net_conn *conn)
{
    static const struct {
        enum file_net_kind kind;
        uint64_t offset, len;
    } plan[N_PIECES] = {{FILE_NET_READ, 0, 64},
                        {FILE_NET_WRITE, 512, 48},
                        {FILE_NET_FLUSH, 0, 0},
                        {FILE_NET_READ, 4096, 700},
                        {FILE_NET_TRUNCATE, 8192, 0}};
    struct file_net_piece pieces[N_PIECES];
    int r = 0;

    for (unsigned i = 0; i < N_PIECES; i++) {
        pieces[i] = (struct file_net_piece){.kind = plan[i].kind, .offset = plan[i].offset, .len = plan[i].len};
        pieces[i].buf = calloc(1, plan[i].len + 1);
        MUST(pieces[i].buf);
        pieces[i].finished = r < 0 || (server.how & 2 && plan[i].kind != FILE_NET_READ);
        if (!pieces[i].finished)
            r = type->start(conn, &pieces[i]);
    }
    if (r == 0)
        r = type->tick(conn, INT64_MAX / 2);
    for (unsigned turns = 0; r == 0 && turns < MAX_CALLS; turns++) {
        short events;
        int fd = type->fd(conn, &events);
        int got = file_net_poll(conn, fd, events, 0);
        r = got > 0 ? type->service(conn, (short)got) : got;
    }
    (void)type->why(conn);
    type->close(conn);
    for (unsigned i = 0; i < N_PIECES; i++)
        free(pieces[i].buf);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    socklen_t len = sizeof(server.address);

    server.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    MUST(server.listener >= 0);
    MUST(bind(server.listener, (const struct sockaddr *)&server.address, len) == 0);
    MUST(listen(server.listener, 16) == 0);
    MUST(getsockname(server.listener, (struct sockaddr *)&server.address, &len) == 0);
    MUST(file_nfs_open(NULL, NULL, NULL, NULL) == 0);
    return 0;
}

/* No port waits for anything afterwards: a run is one of thousands. */
static void hang_up(void)
{
    const struct linger none = {.l_onoff = 1};

    if (server.fd < 0)
        return;
    (void)setsockopt(server.fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(server.fd);
    server.fd = -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file_net_conn *conn = calloc(1, type->size);
    char url[64];
    struct err err;

    MUST(conn);
    conn->type = type;
    server.data = data;
    server.size = size;
    server.at = 1;
    server.how = size ? data[0] : 0;
    server.head_len = server.skip = 0;
    server.n_xids = server.answered = 0;
    server.over = size < 2;
    server.fd = -1;
    snprintf(url, sizeof(url), "nfs://127.0.0.1:%u/a/b", ntohs(server.address.sin_port));
    if (type->open(conn, url, 0, &err) == 0) {
        MUST(conn->props.size <= UINT64_MAX && conn->props.max_transfer);
        work(conn);
    } else {
        type->close(conn);
    }
    if (server.fd < 0)
        serve(); /* it was connected, and nobody has looked */
    hang_up();
    free(conn);
    return 0;
}
