#include "virtio/back_end.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct message {
    uint32_t request, flags, size;
    union {
        uint64_t u64;
        uint32_t u32[2];
        uint64_t words[64];
        uint8_t bytes[512];
    } body;
    int fds[8];
    unsigned n_fds;
};

/* The memory at an address of the table, or NULL. */
static void *at(struct back_end *b, uint64_t addr, uint64_t len)
{
    for (unsigned i = 0; i < b->n_regions; i++)
        if (addr >= b->regions[i].addr && addr - b->regions[i].addr <= b->regions[i].len &&
            len <= b->regions[i].len - (addr - b->regions[i].addr))
            return b->regions[i].map + (addr - b->regions[i].addr);
    atomic_fetch_add(&b->bad, 1);
    return NULL;
}

static bool receive(struct back_end *b, struct message *m)
{
    char control[CMSG_SPACE(sizeof(m->fds))];
    struct iovec iov = {.iov_base = m, .iov_len = 12};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

    memset(m, 0, sizeof(*m));
    if (recvmsg(b->fd, &msg, MSG_CMSG_CLOEXEC | MSG_WAITALL) != 12 || m->size > sizeof(m->body))
        return false;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS) {
        m->n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(m->fds, CMSG_DATA(c), m->n_fds * sizeof(int));
    }
    return m->size == 0 || recv(b->fd, m->body.bytes, m->size, MSG_WAITALL) == (ssize_t)m->size;
}

static void reply(struct back_end *b, const struct message *m, uint64_t value)
{
    uint32_t words[5] = {m->request, 1 | 1 << 2, 8};

    memcpy(words + 3, &value, 8);
    if (m->request == b->garble_at)
        words[2] = 7;
    if (send(b->fd, words, sizeof(words), MSG_NOSIGNAL) < 0)
        atomic_fetch_add(&b->bad, 1);
}

static void set_memory(struct back_end *b, const struct message *m)
{
    b->n_regions = m->body.u32[0];
    if (b->n_regions != m->n_fds || b->n_regions > 8 || m->size != 8 + 32 * b->n_regions)
        abort();
    for (unsigned i = 0; i < b->n_regions; i++) {
        const uint64_t *w = &m->body.words[1 + 4 * i]; /* address, size, user address, offset */
        b->regions[i].addr = w[0];
        b->regions[i].len = w[1];
        b->regions[i].map_len = w[1] + w[3];
        uint8_t *p = mmap(NULL, w[1] + w[3], PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[i], 0);
        if (p == MAP_FAILED || w[0] != w[2])
            abort();
        b->regions[i].map = p + w[3];
        close(m->fds[i]);
    }
}

static void set_ring(struct back_end *b, const struct message *m)
{
    unsigned index = m->request == 12 || m->request == 13 ? m->body.u64 & 0xff : m->body.u32[0];
    struct back_end_ring *r = &b->rings[index];

    if (index >= BACK_END_RINGS)
        abort();
    if (m->request == 8)
        r->num = m->body.u32[1];
    else if (m->request == 9) {
        r->desc = m->body.words[1];
        r->used = m->body.words[2];
        r->avail = m->body.words[3];
    } else if (m->request == 12)
        r->kick = m->fds[0];
    else if (m->request == 13)
        r->call = m->fds[0];
    else if (m->request == 18)
        r->enabled = m->body.u32[1];
}

/* False: the connection is over. */
static bool handle(struct back_end *b)
{
    struct message m;
    uint64_t status = 0;

    if (!receive(b, &m) || m.request == b->close_at)
        return false;
    atomic_fetch_add(&b->n_messages, 1);
    if (m.request == b->silent_at)
        return true;
    if (m.request == 1 || m.request == 15) {
        reply(b, &m, m.request == 1 ? b->features : b->protocol);
        return true;
    }
    if (m.request == 5)
        set_memory(b, &m);
    else if (m.request >= 8 && m.request != 16)
        set_ring(b, &m);
    if (m.request == b->refuse_at)
        status = 1;
    if (m.flags & 1 << 3)
        reply(b, &m, status);
    return true;
}

static void finish(struct back_end *b, struct back_end_ring *r, uint32_t id, uint32_t len)
{
    struct vring_used *used = at(b, r->used, sizeof(*used) + 8 * r->num);
    uint64_t one = 1;
    uint32_t lie = atomic_load(&b->lie_id);

    used->ring[used->idx % r->num] = (struct vring_used_elem){.id = lie ? lie - 1 : id, .len = len};
    __atomic_store_n(&used->idx, (uint16_t)(used->idx + 1), __ATOMIC_RELEASE);
    if (write(r->call, &one, 8) < 0)
        abort();
}

static void walk(struct back_end *b, unsigned index)
{
    struct back_end_ring *r = &b->rings[index];
    struct vring_avail *avail = at(b, r->avail, sizeof(*avail) + 2 * r->num);
    struct vring_desc *desc = at(b, r->desc, 16 * r->num);

    while (r->done != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE)) {
        struct iovec out[BACK_END_IOV_MAX], in[BACK_END_IOV_MAX];
        unsigned n_out = 0, n_in = 0;
        uint16_t head = avail->ring[r->done++ % r->num], i = head;
        for (;;) {
            struct iovec iov = {.iov_base = at(b, desc[i].addr, desc[i].len), .iov_len = desc[i].len};
            if (desc[i].flags & VRING_DESC_F_WRITE)
                in[n_in++] = iov;
            else
                out[n_out++] = iov;
            if (!(desc[i].flags & VRING_DESC_F_NEXT))
                break;
            i = desc[i].next;
        }
        int64_t written = b->serve(b, index, out, n_out, in, n_in);
        atomic_fetch_add(&b->n_chains, 1);
        if (written >= 0)
            finish(b, r, head, (uint32_t)written);
    }
}

static void *run(void *opaque)
{
    struct back_end *b = opaque;

    if (b->listener >= 0)
        b->fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
    atomic_store(&b->connected, true);
    for (;;) {
        struct pollfd fds[2 + BACK_END_RINGS] = {{.fd = b->quit, .events = POLLIN}, {.fd = b->fd, .events = POLLIN}};
        for (unsigned i = 0; i < BACK_END_RINGS; i++)
            fds[2 + i] = (struct pollfd){.fd = b->rings[i].kick, .events = POLLIN};
        if (poll(fds, 2 + BACK_END_RINGS, -1) < 0 && errno != EINTR)
            abort();
        if (fds[0].revents || (fds[1].revents && !handle(b)))
            break;
        for (unsigned i = 0; i < BACK_END_RINGS; i++) {
            uint64_t count;
            if (fds[2 + i].revents && read(b->rings[i].kick, &count, 8) == 8)
                walk(b, i);
        }
    }
    close(b->fd);
    for (unsigned i = 0; i < b->n_regions; i++)
        munmap(b->regions[i].map - (b->regions[i].map_len - b->regions[i].len), b->regions[i].map_len);
    for (unsigned i = 0; i < BACK_END_RINGS; i++) {
        if (b->rings[i].kick >= 0)
            close(b->rings[i].kick);
        if (b->rings[i].call >= 0)
            close(b->rings[i].call);
    }
    return NULL;
}

void back_end_start(struct back_end *b, const char *path, int fd)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    b->fd = fd;
    b->listener = -1;
    b->quit = eventfd(0, EFD_CLOEXEC);
    for (unsigned i = 0; i < BACK_END_RINGS; i++)
        b->rings[i].kick = b->rings[i].call = -1;
    if (path) {
        memcpy(addr.sun_path, path, strlen(path));
        b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(b->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(b->listener, 1) < 0)
            abort();
    }
    if (pthread_create(&b->thread, NULL, run, b))
        abort();
}

void back_end_stop(struct back_end *b)
{
    uint64_t one = 1;

    if (b->listener >= 0)
        shutdown(b->listener, SHUT_RDWR); /* nobody may have come */
    if (write(b->quit, &one, 8) < 0)
        abort();
    pthread_join(b->thread, NULL);
    close(b->quit);
    if (b->listener >= 0)
        close(b->listener);
}
