/*
 * The line has no baud rate: what the guest writes goes to the chardev at once, and as long as the chardev has no room it stays in
 * the transmit FIFO, so THRE stays clear and the guest waits. Input is taken from the chardev as far as the receive FIFO has room.
 *
 * Threads: registers under the device's lock; the chardev's callbacks come on the loop's thread and take it.
 */
#include "device/serial.h"

#include <errno.h>

#define FIFO_SIZE 16
#define CLOCK_HZ  UINT64_C(1843200)
#define N_REGS    8

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

enum { IER_RDA = 1 << 0, IER_THRE = 1 << 1, IER_RLS = 1 << 2, IER_MS = 1 << 3, IER_MASK = 0x0f };
enum {
    IIR_MS = 0x00,
    IIR_NONE = 0x01,
    IIR_THRE = 0x02,
    IIR_RDA = 0x04,
    IIR_RLS = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 1 << 0, FCR_CLEAR_RX = 1 << 1, FCR_CLEAR_TX = 1 << 2, FCR_TRIGGER_SHIFT = 6 };
enum { LCR_WLS = 0x03, LCR_STB = 1 << 2, LCR_PEN = 1 << 3, LCR_DLAB = 1 << 7 };
enum { MCR_DTR = 1 << 0, MCR_RTS = 1 << 1, MCR_OUT1 = 1 << 2, MCR_OUT2 = 1 << 3, MCR_LOOP = 1 << 4, MCR_MASK = 0x1f };
enum { LSR_DR = 1 << 0, LSR_OE = 1 << 1, LSR_THRE = 1 << 5, LSR_TEMT = 1 << 6 };
enum {
    MSR_DCTS = 1 << 0,
    MSR_DDSR = 1 << 1,
    MSR_TERI = 1 << 2,
    MSR_DDCD = 1 << 3,
    MSR_CTS = 1 << 4,
    MSR_DSR = 1 << 5,
    MSR_RI = 1 << 6,
    MSR_DCD = 1 << 7,
    MSR_DELTAS = 0x0f,
};

struct fifo {
    uint8_t data[FIFO_SIZE];
    uint8_t len; /* data[0] is the oldest */
};

struct serial {
    struct device dev;
    struct irq_line irq;
    struct chardev *chardev;
    struct vtimer timeout;

    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint16_t divisor;
    bool overrun;
    bool thre_pending;    /* THR became empty, and nobody has looked at IIR since */
    bool timeout_pending; /* characters wait below the trigger level for four characters' time */
    struct fifo rx, tx;
};

static void fifo_push(struct fifo *f, uint8_t c)
{
    f->data[f->len++] = c;
}

static void fifo_drop(struct fifo *f, size_t n)
{
    f->len = (uint8_t)(f->len - n);
    memmove(f->data, f->data + n, f->len);
}

static unsigned fifo_depth(const struct serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct serial *s)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return s->fcr & FCR_ENABLE ? levels[s->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* The source of highest priority (datasheet table IV). */
static uint8_t pending_source(const struct serial *s)
{
    if ((s->ier & IER_RLS) && s->overrun)
        return IIR_RLS;
    if ((s->ier & IER_RDA) && s->rx.len >= trigger_level(s))
        return IIR_RDA;
    if ((s->ier & IER_RDA) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MS) && (s->msr & MSR_DELTAS))
        return IIR_MS;
    return IIR_NONE;
}

/* OUT2 gates the interrupt on every PC. */
static void update_irq(struct serial *s)
{
    irq_set(&s->irq, (s->mcr & MCR_OUT2) && pending_source(s) != IIR_NONE);
}

/* The time-out starts anew with each character received or read (datasheet, "FIFO interrupt mode operation"). */
static void restart_timeout(struct serial *s)
{
    s->timeout_pending = false;
    if (!s->rx.len || !(s->fcr & FCR_ENABLE)) {
        vtimer_cancel(&s->timeout);
        return;
    }
    uint64_t bits = 1 + 5 + (s->lcr & LCR_WLS) + !!(s->lcr & LCR_PEN) + 1 + !!(s->lcr & LCR_STB);
    uint64_t clocks = 4 * bits * 16 * (s->divisor ? s->divisor : 1);
    vtimer_set(&s->timeout, clock_now(s->dev.env->clock) + clock_ticks_to_ns(clocks, CLOCK_HZ));
}

static void on_timeout(void *opaque)
{
    struct serial *s = opaque;

    device_lock(&s->dev);
    s->timeout_pending = s->rx.len && (s->fcr & FCR_ENABLE);
    update_irq(s);
    device_unlock(&s->dev);
}

static void receive_char(struct serial *s, uint8_t c)
{
    if (s->rx.len < fifo_depth(s)) {
        fifo_push(&s->rx, c);
    } else {
        s->overrun = true;
        if (!(s->fcr & FCR_ENABLE))
            s->rx.data[0] = c; /* without FIFOs the newcomer replaces the old */
    }
    restart_timeout(s);
}

/* Moves what the other end takes out of the transmit FIFO. */
static void drain_tx(struct serial *s)
{
    if (!s->tx.len)
        return;
    if (s->mcr & MCR_LOOP) {
        for (unsigned i = 0; i < s->tx.len; i++)
            receive_char(s, s->tx.data[i]);
        s->tx.len = 0;
    } else {
        fifo_drop(&s->tx, chardev_write(s->chardev, s->tx.data, s->tx.len));
    }
    if (!s->tx.len)
        s->thre_pending = true;
}

static size_t on_can_receive(void *opaque)
{
    struct serial *s = opaque;

    device_lock(&s->dev);
    size_t room = s->mcr & MCR_LOOP ? 0 : fifo_depth(s) - s->rx.len;
    device_unlock(&s->dev);
    return room;
}

static void on_receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct serial *s = opaque;

    device_lock(&s->dev);
    for (size_t i = 0; i < len; i++)
        receive_char(s, buf[i]);
    update_irq(s);
    device_unlock(&s->dev);
}

static void on_writable(void *opaque)
{
    struct serial *s = opaque;

    device_lock(&s->dev);
    drain_tx(s);
    update_irq(s);
    device_unlock(&s->dev);
}

/* The modem lines as they are now, and what has changed since they were read last. */
static void update_modem(struct serial *s)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, old = s->msr;

    if (s->mcr & MCR_LOOP)
        lines = (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                          (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
    uint8_t changed = old ^ lines, deltas = old & MSR_DELTAS;
    deltas |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
    if (changed & old & MSR_RI) /* only its end counts */
        deltas |= MSR_TERI;
    s->msr = lines | deltas;
}

static uint8_t read_data(struct serial *s)
{
    uint8_t c = s->rx.data[0];

    if (!s->rx.len)
        return c;
    fifo_drop(&s->rx, 1);
    restart_timeout(s);
    if (!s->rx.len)
        s->rx.data[0] = c; /* an empty buffer still shows its last character */
    chardev_accept_input(s->chardev);
    return c;
}

static uint8_t read_iir(struct serial *s)
{
    uint8_t source = pending_source(s);

    if (source == IIR_THRE)
        s->thre_pending = false;
    return source | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct serial *s)
{
    uint8_t lsr = (s->rx.len ? LSR_DR : 0) | (s->overrun ? LSR_OE : 0) | (s->tx.len ? 0 : LSR_THRE | LSR_TEMT);

    s->overrun = false;
    return lsr;
}

static uint8_t read_reg(struct serial *s, unsigned reg)
{
    uint8_t val;

    switch (reg) {
    case REG_DATA:
        return s->lcr & LCR_DLAB ? (uint8_t)s->divisor : read_data(s);
    case REG_IER:
        return s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return read_lsr(s);
    case REG_MSR:
        val = s->msr;
        s->msr &= ~MSR_DELTAS;
        return val;
    default:
        return s->scr;
    }
}

static void write_data(struct serial *s, uint8_t c)
{
    s->thre_pending = false;
    if (s->tx.len < fifo_depth(s))
        fifo_push(&s->tx, c); /* else it is lost: the guest did not look at THRE */
    drain_tx(s);
}

static void write_ier(struct serial *s, uint8_t val)
{
    bool was = s->ier & IER_THRE;

    s->ier = val & IER_MASK;
    if (!(s->ier & IER_THRE))
        s->thre_pending = false;
    else if (!was)
        s->thre_pending = !s->tx.len; /* enabling it on an empty THR interrupts at once */
}

static void write_fcr(struct serial *s, uint8_t val)
{
    bool toggled = (s->fcr ^ val) & FCR_ENABLE;

    if (toggled || (val & FCR_CLEAR_RX)) {
        s->rx.len = 0;
        restart_timeout(s);
    }
    if ((toggled || (val & FCR_CLEAR_TX)) && s->tx.len) {
        s->tx.len = 0;
        s->thre_pending = true;
    }
    s->fcr = val & FCR_ENABLE ? val & ~(FCR_CLEAR_RX | FCR_CLEAR_TX) : 0;
    chardev_accept_input(s->chardev);
}

static void write_mcr(struct serial *s, uint8_t val)
{
    bool left_loop = (s->mcr & MCR_LOOP) && !(val & MCR_LOOP);

    s->mcr = val & MCR_MASK;
    update_modem(s);
    drain_tx(s);
    if (left_loop)
        chardev_accept_input(s->chardev);
}

static void write_reg(struct serial *s, unsigned reg, uint8_t val)
{
    switch (reg) {
    case REG_DATA:
        if (s->lcr & LCR_DLAB)
            s->divisor = (s->divisor & 0xff00) | val;
        else
            write_data(s, val);
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB)
            s->divisor = (uint16_t)((s->divisor & 0x00ff) | val << 8);
        else
            write_ier(s, val);
        break;
    case REG_IIR_FCR:
        write_fcr(s, val);
        break;
    case REG_LCR:
        s->lcr = val;
        break;
    case REG_MCR:
        write_mcr(s, val);
        break;
    case REG_SCR:
        s->scr = val;
        break;
    default: /* LSR and MSR are the chip's to write */
        break;
    }
}

/* An 8-bit device: wider accesses arrive as one cycle for each byte. */
static uint64_t serial_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct serial *s = (struct serial *)dev;
    uint64_t val = 0;

    for (unsigned i = 0; i < len; i++)
        val |= (uint64_t)read_reg(s, (unsigned)(off + i) % N_REGS) << (8 * i);
    update_irq(s);
    return val;
}

static void serial_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct serial *s = (struct serial *)dev;

    for (unsigned i = 0; i < len; i++)
        write_reg(s, (unsigned)(off + i) % N_REGS, (uint8_t)(val >> (8 * i)));
    update_irq(s);
}

static void serial_reset(struct device *dev)
{
    struct serial *s = (struct serial *)dev;

    s->ier = s->fcr = s->lcr = s->mcr = s->scr = 0;
    s->divisor = 12; /* 9600 baud; the datasheet leaves it undefined */
    s->rx.len = s->tx.len = 0;
    s->overrun = s->thre_pending = false;
    update_modem(s);
    s->msr &= ~MSR_DELTAS;
    restart_timeout(s);
    update_irq(s);
    chardev_accept_input(s->chardev);
}

static int serial_state(struct device *dev, struct stream *st)
{
    struct serial *s = (struct serial *)dev;

    stream_section(st, "serial", 1);
    stream_u8(st, &s->ier);
    stream_u8(st, &s->fcr);
    stream_u8(st, &s->lcr);
    stream_u8(st, &s->mcr);
    stream_u8(st, &s->msr);
    stream_u8(st, &s->scr);
    stream_u16(st, &s->divisor);
    stream_bool(st, &s->overrun);
    stream_bool(st, &s->thre_pending);
    stream_bool(st, &s->timeout_pending);
    stream_bytes(st, s->rx.data, sizeof(s->rx.data));
    stream_u8(st, &s->rx.len);
    stream_bytes(st, s->tx.data, sizeof(s->tx.data));
    stream_u8(st, &s->tx.len);
    if (!st->loading)
        return st->error;
    if (s->rx.len > FIFO_SIZE || s->tx.len > FIFO_SIZE) {
        s->rx.len = s->tx.len = 0;
        st->error = st->error ? st->error : -EPROTO;
    }
    if (!s->timeout_pending)
        restart_timeout(s);
    drain_tx(s);
    update_irq(s);
    return st->error;
}

static int serial_open(struct device *dev, const void *conf, struct err *err)
{
    struct serial *s = (struct serial *)dev;
    const struct serial_conf *c = conf;

    s->irq = c->irq;
    int r = device_map(dev, dev->env->pio, 0, c->port, N_REGS, err);
    if (r == 0)
        vtimer_init(&s->timeout, dev->env->clock, on_timeout, s);
    return r;
}

static void serial_close(struct device *dev)
{
    vtimer_fini(&((struct serial *)dev)->timeout);
}

void serial_connect(struct device *dev, struct chardev *chardev)
{
    struct serial *s = (struct serial *)dev;
    const struct chardev_receiver receiver = {
        .can_receive = on_can_receive, .receive = on_receive, .writable = on_writable, .opaque = s};

    s->chardev = chardev;
    if (chardev)
        chardev_connect(chardev, &receiver);
}

const struct device_type serial_type = {
    .name = "serial",
    .size = sizeof(struct serial),
    .open = serial_open,
    .read = serial_read,
    .write = serial_write,
    .reset = serial_reset,
    .state = serial_state,
    .close = serial_close,
};
