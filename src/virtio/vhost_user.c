#include "virtio/vhost_user.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    SET_VRING_ENABLE = 18,
};

#define F_PROTOCOL_FEATURES  (UINT64_C(1) << 30)
#define PROTOCOL_F_REPLY_ACK (UINT64_C(1) << 3)

enum { FLAG_VERSION = 1, FLAG_VERSION_MASK = 3, FLAG_REPLY = 1 << 2, FLAG_NEED_REPLY = 1 << 3 };

struct header {
    uint32_t request, flags, size;
};

struct memory_region {
    uint64_t guest_addr, size, user_addr, offset;
};

struct message {
    struct header head;
    union {
        uint64_t u64;
        struct {
            uint32_t index, num;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } addr;
        struct {
            uint32_t n, padding;
            struct memory_region regions[VHOST_USER_REGIONS_MAX];
        } memory;
    } body;
} __attribute__((packed));

static int failed(struct err *err, int r, const char *what)
{
    if (r == -EAGAIN || r == -EWOULDBLOCK)
        return err_set(err, -ETIMEDOUT, "the back end has not answered %s within %d s", what,
                       VHOST_USER_PATIENCE_MS / 1000);
    if (r == -EPIPE || r == -ECONNRESET)
        return err_set(err, r, "the back end has closed the connection at %s", what);
    return err_set(err, r, "the back end's socket at %s: %s", what, strerror(-r));
}

/* Sends a message of `size` bytes in its body, and descriptors with it. */
static int send_message(const struct vhost_user *vu, struct message *m, uint32_t request, uint32_t flags, size_t size,
                        const int *fds, unsigned n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VHOST_USER_REGIONS_MAX * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = m, .iov_len = sizeof(m->head) + size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    m->head = (struct header){.request = request, .flags = FLAG_VERSION | flags, .size = (uint32_t)size};
    if (n_fds) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n_fds * sizeof(int))};
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(vu->fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (size_t)n == iov.iov_len ? 0 : -EPROTO;
}

static int receive_all(int fd, void *buf, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = recv(fd, (char *)buf + got, len - got, 0);
        if (n == 0)
            return -EPIPE;
        if (n < 0 && errno != EINTR)
            return -errno;
        got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* All answers that we ask for are one number. */
static int receive_u64(const struct vhost_user *vu, uint32_t request, uint64_t *value, const char *what,
                       struct err *err)
{
    struct header head;
    int r = receive_all(vu->fd, &head, sizeof(head));

    if (r < 0)
        return failed(err, r, what);
    if (head.request != request || (head.flags & FLAG_VERSION_MASK) != FLAG_VERSION || !(head.flags & FLAG_REPLY) ||
        head.size != sizeof(*value))
        return err_set(err, -EPROTO,
                       "the back end answers %s with message %" PRIu32 ", flags 0x%" PRIx32 ", %" PRIu32 " bytes", what,
                       head.request, head.flags, head.size);
    r = receive_all(vu->fd, value, sizeof(*value));
    return r < 0 ? failed(err, r, what) : 0;
}

static int get_u64(const struct vhost_user *vu, uint32_t request, uint64_t *value, const char *what, struct err *err)
{
    struct message m;
    int r = send_message(vu, &m, request, 0, 0, NULL, 0);

    return r < 0 ? failed(err, r, what) : receive_u64(vu, request, value, what, err);
}

/* A message that sets something; where the back end can say whether it did, it is asked. */
static int set(const struct vhost_user *vu, struct message *m, uint32_t request, size_t size, const int *fds,
               unsigned n_fds, const char *what, struct err *err)
{
    bool ack = vu->protocol & PROTOCOL_F_REPLY_ACK;
    uint64_t status = 0;
    int r = send_message(vu, m, request, ack ? FLAG_NEED_REPLY : 0, size, fds, n_fds);

    if (r < 0)
        return failed(err, r, what);
    if (ack)
        r = receive_u64(vu, request, &status, what, err);
    if (r == 0 && status)
        r = err_set(err, -EREMOTEIO, "the back end refuses %s", what);
    return r;
}

static int set_u64(const struct vhost_user *vu, uint32_t request, uint64_t value, const char *what, struct err *err)
{
    struct message m = {.body.u64 = value};

    return set(vu, &m, request, sizeof(value), NULL, 0, what, err);
}

static int set_state(const struct vhost_user *vu, uint32_t request, unsigned index, unsigned num, const char *what,
                     struct err *err)
{
    struct message m = {.body.state = {.index = index, .num = num}};

    return set(vu, &m, request, sizeof(m.body.state), NULL, 0, what, err);
}

/* Bits 0 to 7: the index. */
static int set_eventfd(const struct vhost_user *vu, uint32_t request, unsigned index, int fd, const char *what,
                       struct err *err)
{
    struct message m = {.body.u64 = index};

    return set(vu, &m, request, sizeof(m.body.u64), &fd, 1, what, err);
}

int vhost_user_open(struct vhost_user *vu, int fd, uint64_t features, struct err *err)
{
    const struct timeval patience = {.tv_sec = VHOST_USER_PATIENCE_MS / 1000};
    uint64_t offered, protocol = 0;
    struct message owner;

    *vu = (struct vhost_user){.fd = fd};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return err_set(err, -errno, "the back end's socket: %s", strerror(errno));
    int r = get_u64(vu, GET_FEATURES, &offered, "GET_FEATURES", err);
    if (r < 0)
        return r;
    if (features & ~offered)
        return err_set(err, -ENOTSUP, "the back end has features 0x%" PRIx64 "; needed are 0x%" PRIx64, offered,
                       features);
    vu->features = features | (offered & F_PROTOCOL_FEATURES);
    if (vu->features & F_PROTOCOL_FEATURES) {
        r = get_u64(vu, GET_PROTOCOL_FEATURES, &protocol, "GET_PROTOCOL_FEATURES", err);
        protocol &= PROTOCOL_F_REPLY_ACK;
        if (r == 0)
            r = set_u64(vu, SET_PROTOCOL_FEATURES, protocol, "SET_PROTOCOL_FEATURES", err);
        vu->protocol = protocol;
    }
    if (r == 0)
        r = set(vu, &owner, SET_OWNER, 0, NULL, 0, "SET_OWNER", err);
    return r < 0 ? r : set_u64(vu, SET_FEATURES, vu->features, "SET_FEATURES", err);
}

int vhost_user_set_memory(struct vhost_user *vu, const struct vhost_user_region *regions, unsigned n, struct err *err)
{
    struct message m = {.body.memory = {.n = n}};
    int fds[VHOST_USER_REGIONS_MAX];

    if (n > VHOST_USER_REGIONS_MAX)
        return err_set(err, -E2BIG, "the back end's memory table: %u regions, up to %d are possible", n,
                       VHOST_USER_REGIONS_MAX);
    for (unsigned i = 0; i < n; i++) {
        m.body.memory.regions[i] = (struct memory_region){.guest_addr = regions[i].addr,
                                                          .size = regions[i].len,
                                                          .user_addr = regions[i].addr,
                                                          .offset = regions[i].offset};
        fds[i] = regions[i].fd;
    }
    return set(vu, &m, SET_MEM_TABLE, 8 + n * sizeof(m.body.memory.regions[0]), fds, n, "SET_MEM_TABLE", err);
}

/* A ring starts with its kick descriptor, and is enabled apart where protocol features were agreed on. */
int vhost_user_start_ring(struct vhost_user *vu, const struct vhost_user_ring *ring, struct err *err)
{
    struct message addr = {
        .body.addr = {.index = ring->index, .desc = ring->desc, .used = ring->used, .avail = ring->avail}};
    int r = set_state(vu, SET_VRING_NUM, ring->index, ring->size, "SET_VRING_NUM", err);

    if (r == 0)
        r = set_state(vu, SET_VRING_BASE, ring->index, 0, "SET_VRING_BASE", err);
    if (r == 0)
        r = set(vu, &addr, SET_VRING_ADDR, sizeof(addr.body.addr), NULL, 0, "SET_VRING_ADDR", err);
    if (r == 0)
        r = set_eventfd(vu, SET_VRING_CALL, ring->index, ring->call, "SET_VRING_CALL", err);
    if (r == 0)
        r = set_eventfd(vu, SET_VRING_KICK, ring->index, ring->kick, "SET_VRING_KICK", err);
    if (r == 0 && vu->features & F_PROTOCOL_FEATURES)
        r = set_state(vu, SET_VRING_ENABLE, ring->index, 1, "SET_VRING_ENABLE", err);
    return r;
}
