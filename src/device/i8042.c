#include "device/i8042.h"

#include <errno.h>

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64
#define QUEUE_SIZE   16

enum { REGION_DATA, REGION_COMMAND };

/* Status register. */
enum {
    STATUS_OBF = 1 << 0,
    STATUS_SYS = 1 << 2,
    STATUS_CMD = 1 << 3,
    STATUS_UNLOCKED = 1 << 4,
    STATUS_AUX = 1 << 5,
    STATUS_TIMEOUT = 1 << 6
};

/* Command byte. */
enum {
    CTR_KBD_INT = 1 << 0,
    CTR_AUX_INT = 1 << 1,
    CTR_SYS = 1 << 2,
    CTR_KBD_DISABLE = 1 << 4,
    CTR_AUX_DISABLE = 1 << 5,
    CTR_TRANSLATE = 1 << 6
};

/* Controller commands. */
enum {
    CMD_READ_RAM = 0x20, /* to 0x3f; RAM byte 0 is the command byte */
    CMD_WRITE_RAM = 0x60,
    CMD_AUX_DISABLE = 0xa7,
    CMD_AUX_ENABLE = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KBD_TEST = 0xab,
    CMD_KBD_DISABLE = 0xad,
    CMD_KBD_ENABLE = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_WRITE_KBD_BUFFER = 0xd2,
    CMD_WRITE_AUX_BUFFER = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_PULSE = 0xf0, /* to 0xff: output lines 0-3 whose bit is 0; line 0 is reset */
};

/* Output port. */
enum { OUT_NO_RESET = 1 << 0, OUT_A20 = 1 << 1, OUT_OBF = 1 << 4 };

/* Keyboard commands and answers. */
enum {
    KBD_SET_LEDS = 0xed,
    KBD_ECHO = 0xee,
    KBD_SCANCODE_SET = 0xf0,
    KBD_IDENTIFY = 0xf2,
    KBD_SET_RATE = 0xf3,
    KBD_ENABLE = 0xf4,
    KBD_DISABLE = 0xf5,
    KBD_DEFAULTS = 0xf6,
    KBD_SET_ALL = 0xf7, /* to 0xfa: key types of set 3, without an argument */
    KBD_SET_ALL_LAST = 0xfa,
    KBD_RESEND = 0xfe,
    KBD_RESET = 0xff,
    KBD_ACK = 0xfa,
    KBD_PASSED = 0xaa,
    KBD_REFUSE = 0xfe,
};

struct i8042 {
    struct device dev;
    struct irq_line kbd_irq;
    struct irq_line aux_irq;

    uint8_t ram[32]; /* [0]: command byte */
    uint8_t status;  /* the bits that are not computed */
    uint8_t command; /* waits for its byte at the data port, or 0 */
    uint8_t output_port;
    uint8_t queue[QUEUE_SIZE]; /* towards the guest, oldest first */
    uint8_t aux[QUEUE_SIZE];   /* whether it is to look as the auxiliary device's */
    uint8_t n_queue;
    uint8_t last; /* what the data port reads when nothing waits */

    uint8_t kbd_command; /* waits for its argument, or 0 */
    uint8_t kbd_last;    /* for RESEND */
    uint8_t scancode_set;
};

static void update_irq(struct i8042 *k)
{
    irq_set(&k->kbd_irq, k->n_queue && !k->aux[0] && (k->ram[0] & CTR_KBD_INT));
    irq_set(&k->aux_irq, k->n_queue && k->aux[0] && (k->ram[0] & CTR_AUX_INT));
}

/* What finds no room is lost, as on the wire. */
static void answer(struct i8042 *k, uint8_t val, bool aux)
{
    if (k->n_queue == QUEUE_SIZE)
        return;
    k->queue[k->n_queue] = val;
    k->aux[k->n_queue++] = aux;
}

static void kbd_answer(struct i8042 *k, uint8_t val)
{
    if (val != KBD_REFUSE)
        k->kbd_last = val;
    answer(k, val, false);
}

static void kbd_argument(struct i8042 *k, uint8_t val)
{
    uint8_t command = k->kbd_command;

    k->kbd_command = 0;
    if (command == KBD_SCANCODE_SET && val > 3) {
        kbd_answer(k, KBD_REFUSE);
        return;
    }
    kbd_answer(k, KBD_ACK);
    if (command == KBD_SCANCODE_SET) {
        if (val)
            k->scancode_set = val;
        else
            kbd_answer(k, k->scancode_set);
    }
}

static void kbd_write(struct i8042 *k, uint8_t val)
{
    /* Anything that is a command ends one that waits for its argument. */
    if (k->kbd_command && val < KBD_SET_LEDS) {
        kbd_argument(k, val);
        return;
    }
    k->kbd_command = 0;
    switch (val) {
    case KBD_ECHO:
        kbd_answer(k, KBD_ECHO);
        break;
    case KBD_SET_LEDS:
    case KBD_SET_RATE:
    case KBD_SCANCODE_SET:
        k->kbd_command = val;
        kbd_answer(k, KBD_ACK);
        break;
    case KBD_IDENTIFY: /* an MF2 keyboard */
        kbd_answer(k, KBD_ACK);
        kbd_answer(k, 0xab);
        kbd_answer(k, k->ram[0] & CTR_TRANSLATE ? 0x41 : 0x83);
        break;
    case KBD_ENABLE:
        kbd_answer(k, KBD_ACK);
        break;
    case KBD_DISABLE:
    case KBD_DEFAULTS:
        k->scancode_set = 2;
        kbd_answer(k, KBD_ACK);
        break;
    case KBD_RESEND:
        kbd_answer(k, k->kbd_last);
        break;
    case KBD_RESET:
        k->scancode_set = 2;
        kbd_answer(k, KBD_ACK);
        kbd_answer(k, KBD_PASSED);
        break;
    default:
        kbd_answer(k, val >= KBD_SET_ALL && val <= KBD_SET_ALL_LAST ? KBD_ACK : KBD_REFUSE);
        break;
    }
}

static void write_output_port(struct i8042 *k, uint8_t val)
{
    k->output_port = val & (OUT_NO_RESET | OUT_A20);
    if (!(val & OUT_NO_RESET))
        power_request(&k->dev.env->power, POWER_RESET, 0);
}

static void write_command(struct i8042 *k, uint8_t val)
{
    k->command = 0;
    k->status |= STATUS_CMD;
    if (val >= CMD_READ_RAM && val < CMD_READ_RAM + 0x20) {
        answer(k, k->ram[val & 0x1f], false);
        return;
    }
    if (val >= CMD_PULSE) {
        if (!(val & OUT_NO_RESET))
            power_request(&k->dev.env->power, POWER_RESET, 0);
        return;
    }
    switch (val) {
    case CMD_AUX_DISABLE:
        k->ram[0] |= CTR_AUX_DISABLE;
        break;
    case CMD_AUX_ENABLE:
        k->ram[0] &= (uint8_t)~CTR_AUX_DISABLE;
        break;
    case CMD_AUX_TEST:
        answer(k, 0x00, false); /* the port's lines are well, whether or not anything hangs on them */
        break;
    case CMD_SELF_TEST:
        k->status |= STATUS_SYS;
        k->n_queue = 0;
        answer(k, 0x55, false);
        break;
    case CMD_KBD_TEST:
        answer(k, 0x00, false);
        break;
    case CMD_KBD_DISABLE:
        k->ram[0] |= CTR_KBD_DISABLE;
        break;
    case CMD_KBD_ENABLE:
        k->ram[0] &= (uint8_t)~CTR_KBD_DISABLE;
        break;
    case CMD_READ_INPUT:
        answer(k, 0x80, false); /* not locked */
        break;
    case CMD_READ_OUTPUT:
        answer(k, k->output_port | (k->n_queue ? OUT_OBF : 0), false);
        break;
    default:
        if ((val >= CMD_WRITE_RAM && val < CMD_WRITE_RAM + 0x20) || (val >= CMD_WRITE_OUTPUT && val <= CMD_WRITE_AUX))
            k->command = val;
        break;
    }
}

static void write_data(struct i8042 *k, uint8_t val)
{
    uint8_t command = k->command;

    k->command = 0;
    k->status &= (uint8_t)~STATUS_CMD;
    switch (command) {
    case 0:
        k->ram[0] &= (uint8_t)~CTR_KBD_DISABLE; /* writing to the keyboard enables it */
        kbd_write(k, val);
        break;
    case CMD_WRITE_OUTPUT:
        write_output_port(k, val);
        break;
    case CMD_WRITE_KBD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
        answer(k, val, command == CMD_WRITE_AUX_BUFFER);
        break;
    case CMD_WRITE_AUX:
        /* No device takes it: the controller answers in its place. */
        k->status |= STATUS_TIMEOUT;
        answer(k, KBD_REFUSE, true);
        break;
    default:
        k->ram[command & 0x1f] = val;
        if ((command & 0x1f) == 0)
            k->status = (uint8_t)((k->status & ~STATUS_SYS) | (val & CTR_SYS ? STATUS_SYS : 0));
        break;
    }
}

static uint8_t read_data(struct i8042 *k)
{
    if (!k->n_queue)
        return k->last;
    k->last = k->queue[0];
    k->n_queue--;
    memmove(k->queue, k->queue + 1, k->n_queue);
    memmove(k->aux, k->aux + 1, k->n_queue);
    if (!k->n_queue)
        k->status &= (uint8_t)~STATUS_TIMEOUT;
    /* The lines fall between two bytes, so that each of them is an edge. */
    irq_set(&k->kbd_irq, false);
    irq_set(&k->aux_irq, false);
    return k->last;
}

static uint64_t i8042_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct i8042 *k = (struct i8042 *)dev;

    if (region == REGION_COMMAND)
        return (uint8_t)(k->status | STATUS_UNLOCKED | (k->n_queue ? STATUS_OBF : 0) |
                         (k->n_queue && k->aux[0] ? STATUS_AUX : 0));
    uint8_t val = read_data(k);
    update_irq(k);
    return val;
}

static void i8042_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct i8042 *k = (struct i8042 *)dev;

    if (region == REGION_COMMAND)
        write_command(k, (uint8_t)val);
    else
        write_data(k, (uint8_t)val);
    update_irq(k);
}

/* As firmware leaves it: tested, keyboard on with translation, no interrupts yet. */
static void i8042_reset(struct device *dev)
{
    struct i8042 *k = (struct i8042 *)dev;

    memset(k->ram, 0, sizeof(k->ram));
    k->ram[0] = CTR_SYS | CTR_AUX_DISABLE | CTR_TRANSLATE;
    k->status = STATUS_SYS;
    k->output_port = OUT_NO_RESET | OUT_A20;
    k->command = k->kbd_command = k->kbd_last = k->last = k->n_queue = 0;
    k->scancode_set = 2;
    update_irq(k);
}

static int i8042_state(struct device *dev, struct stream *s)
{
    struct i8042 *k = (struct i8042 *)dev;

    stream_section(s, "i8042", 1);
    stream_bytes(s, k->ram, sizeof(k->ram));
    stream_u8(s, &k->status);
    stream_u8(s, &k->command);
    stream_u8(s, &k->output_port);
    stream_bytes(s, k->queue, sizeof(k->queue));
    stream_bytes(s, k->aux, sizeof(k->aux));
    stream_u8(s, &k->n_queue);
    stream_u8(s, &k->last);
    stream_u8(s, &k->kbd_command);
    stream_u8(s, &k->kbd_last);
    stream_u8(s, &k->scancode_set);
    if (s->loading && k->n_queue > QUEUE_SIZE) {
        k->n_queue = 0;
        s->error = s->error ? s->error : -EPROTO;
    }
    if (s->loading)
        update_irq(k);
    return s->error;
}

static int i8042_open(struct device *dev, const void *conf, struct err *err)
{
    struct i8042 *k = (struct i8042 *)dev;
    const struct i8042_conf *c = conf;

    k->kbd_irq = c->kbd_irq;
    k->aux_irq = c->aux_irq;
    int r = device_map(dev, dev->env->pio, REGION_DATA, PORT_DATA, 1, err);

    return r < 0 ? r : device_map(dev, dev->env->pio, REGION_COMMAND, PORT_COMMAND, 1, err);
}

const struct device_type i8042_type = {
    .name = "i8042",
    .size = sizeof(struct i8042),
    .open = i8042_open,
    .read = i8042_read,
    .write = i8042_write,
    .reset = i8042_reset,
    .state = i8042_state,
};
