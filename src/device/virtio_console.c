/*
 * Bytes go through unbuffered: a port's input is taken from its chardev as the guest has buffers for it, its output stays in the guest's
 * buffers until the chardev takes it. What the guest is to be told over the control queue is a set of bits for each port, so that nothing piles
 * up when it does not listen.
 *
 * A guest's kernel waits for its console's output with a vCPU that does nothing else and holds locks. So a console's output that does not go
 * within `patience_ns` is lost, and all that follows, until somebody reads again.
 *
 * Threads: all on the device's iothread, the chardevs' callbacks too.
 */
#include "device/virtio_console.h"

#include <ctype.h>
#include <errno.h>

#include "base/log.h"

#define F_SIZE      (UINT64_C(1) << 0)
#define F_MULTIPORT (UINT64_C(1) << 1)

#define N_PORTS          (VIRTIO_CONSOLE_PORTS + 1)
#define QUEUE_SIZE       64
#define BYTES_AT_A_TIME  (256 * 1024) /* of a port's output, before the loop's other work has its turn */
#define CHAIN_COST       64           /* in bytes, for what a chain costs without any */
#define DEFAULT_PATIENCE (250 * NS_PER_MS)

/* 5.3.2; port n > 0 has 2n + 2 and 2n + 3. */
enum { QUEUE_RX0, QUEUE_TX0, QUEUE_CONTROL_RX, QUEUE_CONTROL_TX };

/* 5.3.4 */
struct config {
    uint16_t cols, rows;
    uint32_t max_ports;
};

/* 5.3.6.2 */
enum {
    EVENT_DEVICE_READY,
    EVENT_PORT_ADD,
    EVENT_PORT_REMOVE,
    EVENT_PORT_READY,
    EVENT_CONSOLE_PORT,
    EVENT_RESIZE,
    EVENT_PORT_OPEN,
    EVENT_PORT_NAME,
};

struct message {
    uint32_t port;
    uint16_t event, value;
};

/* What a guest is to be told of a port, in this order. */
enum { OWE_ADD, OWE_CONSOLE, OWE_SIZE, OWE_NAME, OWE_CLOSED, OWE_OPEN, N_OWED };

struct port {
    struct virtio_console *vc;
    struct chardev *chardev; /* NULL: there is no such port */
    char name[VIRTIO_CONSOLE_NAME_MAX];
    bool is_console;
    bool away;       /* nobody is at the host's end; as the chardev said last */
    bool ready;      /* the guest knows it */
    bool guest_open; /* a program in the guest has it open */
    unsigned owed;   /* 1 << OWE_* */

    struct virtq_elem *rx; /* to be filled next */
    struct virtq_elem *tx; /* that the chardev has taken tx_done bytes of */
    uint64_t tx_done;      /* also while the device is stopped and the chain is back in its queue */
    bool waiting;          /* for the chardev to have room */
    bool dropping;         /* what it has no room for is lost */
    struct loop_timer patience;
};

struct virtio_console {
    struct virtio v;
    struct port ports[N_PORTS];
    struct config config;
    int64_t patience_ns;
    struct loop_event more; /* output, when the loop's other work has had its turn */
    bool complained;        /* said once */
};

static struct virtio_console *of(struct virtio *v)
{
    return CONTAINER_OF(v, struct virtio_console, v);
}

static void complain(struct virtio_console *vc, const char *what)
{
    if (!vc->complained)
        log_warn("%s: the guest %s", vc->v.name, what);
    vc->complained = true;
}

static unsigned index_of(const struct port *p)
{
    return (unsigned)(p - p->vc->ports);
}

static unsigned rx_index(unsigned n)
{
    return n ? 2 * n + 2 : QUEUE_RX0;
}

static bool multiport(const struct virtio_console *vc)
{
    return virtio_has(&vc->v, F_MULTIPORT);
}

/* The queue, or NULL while the device or the queue is off. */
static struct virtq *queue(struct virtio_console *vc, unsigned n)
{
    return virtio_running(&vc->v) && virtio_queue_enabled(&vc->v, n) ? vc->v.queues[n] : NULL;
}

/* ---- control messages to the guest ---- */

static uint32_t write_message(struct port *p, unsigned what, struct virtq_elem *elem)
{
    static const struct {
        uint16_t event, value;
    } messages[N_OWED] = {
        [OWE_ADD] = {EVENT_PORT_ADD, 0},   [OWE_CONSOLE] = {EVENT_CONSOLE_PORT, 1}, [OWE_SIZE] = {EVENT_RESIZE, 0},
        [OWE_NAME] = {EVENT_PORT_NAME, 1}, [OWE_CLOSED] = {EVENT_PORT_OPEN, 0},     [OWE_OPEN] = {EVENT_PORT_OPEN, 1},
    };
    const struct message m = {index_of(p), messages[what].event, messages[what].value};
    const uint16_t size[2] = {p->chardev->cols, p->chardev->rows};
    size_t n = iov_write(elem->in, elem->n_in, 0, &m, sizeof(m));

    if (what == OWE_SIZE)
        n += iov_write(elem->in, elem->n_in, sizeof(m), size, sizeof(size));
    else if (what == OWE_NAME)
        n += iov_write(elem->in, elem->n_in, sizeof(m), p->name, strlen(p->name));
    return (uint32_t)n;
}

/* The next port with something to tell, or NULL. */
static struct port *next_owing(struct virtio_console *vc)
{
    for (unsigned i = 0; i < N_PORTS; i++)
        if (vc->ports[i].owed)
            return &vc->ports[i];
    return NULL;
}

/* Tells the guest as much as it has buffers for. */
static void tell(struct virtio_console *vc)
{
    struct virtq *q = multiport(vc) ? queue(vc, QUEUE_CONTROL_RX) : NULL;
    struct virtq_elem *elem;
    struct port *p;
    bool any = false;

    if (!q)
        return;
    while ((p = next_owing(vc))) {
        virtq_disable_notify(q);
        elem = virtq_pop(q);
        if (!elem && !virtq_enable_notify(q))
            break;
        if (!elem)
            continue;
        if (elem->in_len < sizeof(struct message)) {
            virtq_push(q, elem, 0);
            virtq_break(q, "a control buffer without room for a message");
            break;
        }
        unsigned what = (unsigned)__builtin_ctz(p->owed);
        virtq_push(q, elem, write_message(p, what, elem));
        p->owed &= ~(1U << what);
        any = true;
    }
    if (any)
        virtq_signal(q);
}

static bool has_size(const struct port *p)
{
    return p->is_console && p->chardev && p->chardev->cols && p->chardev->rows;
}

/* The guest has the port: what it must know to use it. */
static void introduce(struct port *p)
{
    p->owed |= (p->is_console ? 1U << OWE_CONSOLE : 0) | (has_size(p) ? 1U << OWE_SIZE : 0) |
               (*p->name ? 1U << OWE_NAME : 0) | (p->chardev->away ? 0 : 1U << OWE_OPEN);
}

/* ---- a port's bytes ---- */

static bool is_open(const struct port *p)
{
    return multiport(p->vc) ? p->guest_open : index_of(p) == 0;
}

static size_t on_can_receive(void *opaque)
{
    struct port *p = opaque;
    struct virtq *q = is_open(p) ? queue(p->vc, rx_index(index_of(p))) : NULL;

    if (!q)
        return 0;
    while (!p->rx) {
        virtq_disable_notify(q);
        p->rx = virtq_pop(q);
        if (!p->rx && !virtq_enable_notify(q))
            return 0;
    }
    if (!p->rx->in_len) {
        virtq_push(q, p->rx, 0);
        p->rx = NULL;
        virtq_break(q, "a receive buffer without room");
        return 0;
    }
    return p->rx->in_len;
}

static void on_receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct port *p = opaque;
    struct virtq *q = p->rx->queue;

    virtq_push(q, p->rx, (uint32_t)iov_write(p->rx->in, p->rx->n_in, 0, buf, len));
    p->rx = NULL;
    virtq_signal(q);
}

/* Puts the chain's bytes to the chardev; true when the guest can have it back. */
static bool put_chain(struct port *p, size_t *budget)
{
    const struct virtq_elem *elem = p->tx;
    uint8_t buf[4096];

    while (p->tx_done < elem->out_len) {
        size_t want = *budget < sizeof(buf) ? *budget : sizeof(buf);
        size_t n = iov_read(elem->out, elem->n_out, p->tx_done, buf, want);
        size_t taken = chardev_write(p->chardev, buf, n);
        p->tx_done += taken;
        *budget -= taken;
        if (!*budget)
            return p->tx_done >= elem->out_len;
        if (taken == n)
            continue;
        if (p->dropping)
            return true;
        p->waiting = true;
        if (p->is_console)
            loop_timer_set(&p->patience, loop_now() + p->vc->patience_ns);
        return false;
    }
    return true;
}

static void put_output(struct port *p)
{
    struct virtq *q = queue(p->vc, rx_index(index_of(p)) + 1);
    size_t budget = BYTES_AT_A_TIME;
    bool any = false;

    if (!q || p->waiting)
        return;
    do {
        virtq_disable_notify(q);
        while (budget && (p->tx || (p->tx = virtq_pop(q)))) {
            budget -= budget < CHAIN_COST ? budget : CHAIN_COST;
            if (!budget || !put_chain(p, &budget))
                break;
            virtq_push(q, p->tx, 0);
            p->tx = NULL;
            p->tx_done = 0;
            any = true;
        }
    } while (budget && !p->waiting && virtq_enable_notify(q));
    if (any)
        virtq_signal(q);
    if (!budget)
        loop_event_set(&p->vc->more);
}

static void on_writable(void *opaque)
{
    struct port *p = opaque;

    loop_timer_cancel(&p->patience);
    p->waiting = p->dropping = false;
    put_output(p);
}

static void on_patience(void *opaque)
{
    struct port *p = opaque;

    p->waiting = false;
    p->dropping = true;
    put_output(p);
}

/* The chardev's other end has come, gone, or changed its size. */
static void on_changed(void *opaque)
{
    struct port *p = opaque;
    struct virtio_console *vc = p->vc;

    if (index_of(p) == 0 && has_size(p)) {
        vc->config.cols = p->chardev->cols;
        vc->config.rows = p->chardev->rows;
        virtio_config_put(&vc->v, 0, &vc->config, sizeof(vc->config));
        if (virtio_has(&vc->v, F_SIZE) && !multiport(vc))
            virtio_config_changed(&vc->v);
    }
    bool came_or_went = p->away != p->chardev->away;
    p->away = p->chardev->away;
    if (!p->ready)
        return;
    /* That it was closed meanwhile, the guest is told even when it is open again. */
    if (came_or_went && p->away)
        p->owed = (p->owed & ~(1U << OWE_OPEN)) | 1U << OWE_CLOSED;
    else if (came_or_went)
        p->owed |= 1U << OWE_OPEN;
    else if (has_size(p))
        p->owed |= 1U << OWE_SIZE;
    tell(vc);
}

static void on_more(void *opaque)
{
    struct virtio_console *vc = opaque;

    for (unsigned i = 0; i < N_PORTS; i++)
        if (vc->ports[i].chardev)
            put_output(&vc->ports[i]);
}

/* ---- control messages from the guest ---- */

static void on_device_ready(struct virtio_console *vc)
{
    for (unsigned i = 0; i < N_PORTS; i++) {
        struct port *p = &vc->ports[i];
        p->ready = false;
        p->owed = p->chardev ? 1U << OWE_ADD : 0;
    }
}

static void on_message(struct virtio_console *vc, const struct message *m)
{
    if (m->event == EVENT_DEVICE_READY && m->value == 1) {
        on_device_ready(vc);
        return;
    }
    if (m->event == EVENT_DEVICE_READY) {
        complain(vc, "could not set up the device");
        return;
    }
    struct port *p = m->port < N_PORTS ? &vc->ports[m->port] : NULL;
    if (!p || !p->chardev) {
        complain(vc, "speaks of ports that there are not");
        return;
    }
    switch (m->event) {
    case EVENT_PORT_READY:
        p->ready = m->value == 1;
        p->owed = 0;
        if (p->ready)
            introduce(p);
        else
            complain(vc, "could not set up a port");
        break;
    case EVENT_PORT_OPEN:
        p->guest_open = m->value != 0;
        if (p->guest_open)
            chardev_accept_input(p->chardev);
        break;
    default:
        complain(vc, "sends control messages of an unknown kind");
        break;
    }
}

static void take_messages(struct virtio_console *vc)
{
    struct virtq *q = queue(vc, QUEUE_CONTROL_TX);
    struct virtq_elem *elem;
    struct message m;
    bool any = false;

    if (!q)
        return;
    do {
        virtq_disable_notify(q);
        while ((elem = virtq_pop(q))) {
            if (iov_read(elem->out, elem->n_out, 0, &m, sizeof(m)) == sizeof(m))
                on_message(vc, &m);
            else
                complain(vc, "sends control messages that are cut short");
            virtq_push(q, elem, 0);
            any = true;
        }
    } while (virtq_enable_notify(q));
    if (any)
        virtq_signal(q);
    tell(vc);
}

/* ---- the type ---- */

static void console_notify(struct virtio *v, unsigned n)
{
    struct virtio_console *vc = of(v);

    if (n == QUEUE_CONTROL_RX) {
        tell(vc);
    } else if (n == QUEUE_CONTROL_TX) {
        if (multiport(vc))
            take_messages(vc);
    } else {
        struct port *p = &vc->ports[n < 2 ? 0 : n / 2 - 1];
        if (p->chardev && n % 2)
            put_output(p);
        else if (p->chardev)
            chardev_accept_input(p->chardev);
    }
}

/* Every queue is notified, which is all there is to begin with. */
static void console_start(struct virtio *v)
{
}

static void console_stop(struct virtio *v)
{
    struct virtio_console *vc = of(v);

    for (unsigned i = 0; i < N_PORTS; i++) {
        struct port *p = &vc->ports[i];
        loop_timer_cancel(&p->patience);
        p->waiting = false;
        p->rx = p->tx = NULL; /* given up, to come again */
    }
    virtio_stopped(v);
}

static void console_reset(struct virtio *v)
{
    struct virtio_console *vc = of(v);

    for (unsigned i = 0; i < N_PORTS; i++) {
        struct port *p = &vc->ports[i];
        p->ready = p->guest_open = p->dropping = false;
        p->owed = 0;
        p->tx_done = 0;
    }
}

static int console_state(struct virtio *v, struct stream *s)
{
    struct virtio_console *vc = of(v);

    stream_section(s, "virtio-console", 1);
    for (unsigned i = 0; i < N_PORTS; i++) {
        struct port *p = &vc->ports[i];
        uint32_t owed = p->owed;
        bool is_there = p->chardev;
        stream_bool(s, &is_there);
        stream_bool(s, &p->ready);
        stream_bool(s, &p->guest_open);
        stream_u32(s, &owed);
        stream_u64(s, &p->tx_done);
        if (!s->loading || s->error)
            continue;
        if (is_there != !!p->chardev)
            stream_refuse(s, -EPROTO,
                          is_there ? "there was a port %u, and is none" : "there was no port %u, and is one", i);
        if (s->error)
            continue;
        if ((!is_there && (owed || p->ready)) || owed >> N_OWED)
            s->error = -EPROTO;
        else
            p->owed = owed;
        /* The other end is not the one it was. */
        if (p->ready && !s->error)
            p->owed = (p->owed & ~(1U << OWE_OPEN)) | 1U << OWE_CLOSED | (p->chardev->away ? 0 : 1U << OWE_OPEN) |
                      (has_size(p) ? 1U << OWE_SIZE : 0);
    }
    return s->error;
}

/* ---- opening and closing ---- */

int virtio_console_check_name(const char *name, struct err *err)
{
    size_t len = strlen(name);
    bool fine = len > 0 && len < VIRTIO_CONSOLE_NAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;

    for (size_t i = 0; i < len; i++)
        fine = fine && isgraph((unsigned char)name[i]) && name[i] != '/';
    if (!fine)
        return err_set(err, -EINVAL, "port '%.80s': accepted is a name of 1 to %d printable characters without '/'",
                       name, VIRTIO_CONSOLE_NAME_MAX - 1);
    return 0;
}

struct opening {
    struct virtio_console *vc;
    const struct virtio_console_conf *conf;
    struct err *err;
    int error;
};

static int open_port(struct port *p, const struct virtio_console_conf *conf, const struct virtio_console_port *from,
                     struct err *err)
{
    const struct chardev_receiver receiver = {.can_receive = on_can_receive,
                                              .receive = on_receive,
                                              .writable = on_writable,
                                              .changed = on_changed,
                                              .opaque = p};
    const char *name = from->name ? from->name : "";
    int r = *name ? virtio_console_check_name(name, err) : 0;

    if (r < 0)
        return r;
    for (unsigned i = 0; i < N_PORTS && *name; i++)
        if (strcmp(p->vc->ports[i].name, name) == 0)
            return err_set(err, -EEXIST, "port '%s' is there twice", name);
    r = conf->open_backend(conf->opaque, &p->chardev, from->backend, p->vc->v.io->loop, err);
    if (r < 0) {
        p->chardev = NULL;
        err_prefix(err, "port '%s'", *name ? name : "console");
        return r;
    }
    strcpy(p->name, name);
    p->is_console = from->is_console;
    loop_timer_init(&p->patience, p->vc->v.io->loop, on_patience, p);
    chardev_connect(p->chardev, &receiver);
    on_changed(p);
    return 0;
}

/* On the iothread. Port 0 is for the first console. */
static void open_ports(void *opaque)
{
    struct opening *o = opaque;
    unsigned next = 1;

    loop_event_init(&o->vc->more, o->vc->v.io->loop, on_more, o->vc);

    for (unsigned i = 0; i < o->conf->n_ports && o->error == 0; i++) {
        const struct virtio_console_port *from = &o->conf->ports[i];
        bool first = from->is_console && !o->vc->ports[0].chardev;
        o->error = open_port(&o->vc->ports[first ? 0 : next++], o->conf, from, o->err);
    }
    o->vc->config.max_ports = next;
}

/* On the iothread, in a call of its own: what the backends have posted is behind them then. */
static void close_ports(void *opaque)
{
    struct virtio_console *vc = opaque;

    for (unsigned i = 0; i < N_PORTS; i++) {
        loop_timer_cancel(&vc->ports[i].patience);
        chardev_close(vc->ports[i].chardev);
        vc->ports[i].chardev = NULL;
    }
    loop_event_fini(&vc->more);
}

static int console_open(struct virtio *v, const void *opaque, struct err *err)
{
    struct virtio_console *vc = of(v);
    struct opening o = {.vc = vc, .conf = opaque, .err = err};

    if (o.conf->n_ports < 1 || o.conf->n_ports > VIRTIO_CONSOLE_PORTS)
        return err_set(err, -EINVAL, "%u ports: accepted are 1 to %d", o.conf->n_ports, VIRTIO_CONSOLE_PORTS);
    for (unsigned i = 0; i < N_PORTS; i++)
        vc->ports[i].vc = vc;
    vc->patience_ns = o.conf->patience_ns ? o.conf->patience_ns : DEFAULT_PATIENCE;
    iothread_call(v->io, open_ports, &o);
    if (o.error < 0) {
        iothread_call(v->io, close_ports, vc);
        return o.error;
    }
    v->features = F_MULTIPORT | (has_size(&vc->ports[0]) ? F_SIZE : 0);
    v->n_queues = 2 * vc->config.max_ports + 2;
    v->queue_size = QUEUE_SIZE;
    virtio_config_put(v, 0, &vc->config, sizeof(vc->config));
    return 0;
}

static void console_close(struct virtio *v)
{
    iothread_call(v->io, close_ports, of(v));
}

const struct virtio_type virtio_console_type = {
    .name = "console",
    .id = 3,
    .pci_class = 0x078000, /* communication controller, other */
    .size = sizeof(struct virtio_console),
    .open = console_open,
    .start = console_start,
    .notify = console_notify,
    .stop = console_stop,
    .reset = console_reset,
    .state = console_state,
    .close = console_close,
};
