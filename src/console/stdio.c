/*
 * The console on standard input and output. Where input is a terminal, it is raw while the guest runs, and Ctrl-A is
 * the way to vireo itself. Where it is a pipe, a file or closed, its end just ends the input.
 *
 * Threads: all on the loop's thread but write, room and accept_input (see chardev.h). The descriptors 0 and 1 are not
 * touched; stdio owns its own ways to the same places. SIGTSTP, SIGCONT and SIGWINCH are taken while a terminal is raw: opened
 * before other threads start, so that they inherit the mask, or with these signals blocked on every thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "console/console.h"
#include "console/fd.h"
#include "console/input.h"
#include "console/output.h"
#include "console/terminal.h"

#define ESCAPE 0x01 /* Ctrl-A */

static const char keys_help[] = "\r\nCtrl-A x       end the VM"
                                "\r\nCtrl-A p       press its power button"
                                "\r\nCtrl-A s       save its state to --save's file, and end it"
                                "\r\nCtrl-A h       this list"
                                "\r\nCtrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

struct stdio {
    struct chardev dev;
    const struct console_hooks *hooks;
    struct loop *loop;
    struct input in;
    struct output out;
    int in_fd, out_fd; /* -1: closed from the start */
    bool is_terminal;
    bool escaped; /* Ctrl-A came, the key after it not yet */
    struct terminal terminal;
    struct loop_fd signals;
    sigset_t old_mask;
};

static struct stdio *of(struct chardev *dev)
{
    return CONTAINER_OF(dev, struct stdio, dev);
}

static void escape_key(struct stdio *s, uint8_t key)
{
    switch (key) {
    case 'x':
    case 'X':
        s->hooks->quit(s->hooks->opaque);
        break;
    case 'p':
    case 'P':
        s->hooks->power(s->hooks->opaque);
        break;
    case 's':
    case 'S':
        s->hooks->save(s->hooks->opaque);
        break;
    case 'h':
    case 'H':
    case '?':
        output_write(&s->out, (const uint8_t *)keys_help, sizeof(keys_help) - 1);
        break;
    default:
        break;
    }
}

/* Takes Ctrl-A and the key after it out of what was typed; Ctrl-A twice is Ctrl-A. */
static size_t filter_keys(void *opaque, uint8_t *buf, size_t len)
{
    struct stdio *s = opaque;
    size_t kept = 0;

    if (!s->is_terminal)
        return len;
    for (size_t i = 0; i < len; i++) {
        if (s->escaped && buf[i] != ESCAPE)
            escape_key(s, buf[i]);
        else if (s->escaped || buf[i] != ESCAPE)
            buf[kept++] = buf[i];
        s->escaped = !s->escaped && buf[i] == ESCAPE;
    }
    return kept;
}

static const struct input_ops input_ops = {.filter = filter_keys};

static void output_failed(void *opaque, int error)
{
    struct stdio *s = opaque;
    char reason[128];

    snprintf(reason, sizeof(reason), "console: standard output: %s", strerror(error));
    s->hooks->fail(s->hooks->opaque, reason);
}

static void look_at_size(struct stdio *s)
{
    struct winsize size;

    if (ioctl(s->in_fd, TIOCGWINSZ, &size) == 0)
        chardev_set_size(&s->dev, size.ws_col, size.ws_row);
}

/* Stopped from outside: leave the terminal as it was found. Continued: make it raw again, whatever the shell did to it. */
static void on_signal(void *opaque, uint32_t events)
{
    struct stdio *s = opaque;
    struct signalfd_siginfo info;

    if (read(s->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGTSTP) {
        terminal_set_raw(&s->terminal, false);
        raise(SIGSTOP);
    }
    if (info.ssi_signo != SIGWINCH)
        terminal_set_raw(&s->terminal, true);
    look_at_size(s);
}

static int open_signals(struct stdio *s, struct err *err)
{
    sigset_t mask;
    int r;

    sigemptyset(&mask);
    sigaddset(&mask, SIGTSTP);
    sigaddset(&mask, SIGCONT);
    sigaddset(&mask, SIGWINCH);
    pthread_sigmask(SIG_BLOCK, &mask, &s->old_mask);
    s->signals = (struct loop_fd){.fn = on_signal, .opaque = s};
    s->signals.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals.fd < 0) {
        r = -errno;
        goto restore_mask;
    }
    r = loop_fd_add(s->loop, &s->signals, EPOLLIN);
    if (r < 0)
        goto close_signals;
    return 0;

close_signals:
    close(s->signals.fd);
restore_mask:
    pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
    return err_set(err, r, "console: signals: %s", strerror(-r));
}

static void close_signals(struct stdio *s)
{
    loop_fd_remove(s->loop, &s->signals);
    close(s->signals.fd);
    pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
}

static int open_terminal(struct stdio *s, struct err *err)
{
    int r = open_signals(s, err);
    if (r < 0)
        return r;
    r = terminal_open(&s->terminal, s->in_fd, err);
    if (r < 0)
        close_signals(s);
    s->is_terminal = r == 0;
    if (r == 0)
        look_at_size(s);
    return r;
}

static void close_terminal(struct stdio *s)
{
    close_signals(s);
    terminal_close(&s->terminal);
}

static size_t stdio_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return output_write(&of(dev)->out, buf, len);
}

static size_t stdio_room(struct chardev *dev)
{
    return output_room(&of(dev)->out);
}

static void stdio_accept_input(struct chardev *dev)
{
    input_accept(&of(dev)->in);
}

static void stdio_close(struct chardev *dev)
{
    struct stdio *s = of(dev);

    input_fini(&s->in);
    output_fini(&s->out);
    if (s->is_terminal)
        close_terminal(s);
    if (s->in_fd >= 0)
        close(s->in_fd);
    if (s->out_fd >= 0)
        close(s->out_fd);
    free(s);
}

static const struct chardev_ops stdio_ops = {
    .name = "stdio",
    .write = stdio_write,
    .room = stdio_room,
    .accept_input = stdio_accept_input,
    .close = stdio_close,
};

int stdio_open(struct chardev **dev, const struct console_conf *conf, struct err *err)
{
    struct stdio *s = calloc(1, sizeof(*s));
    int r = 0;

    if (!s)
        return err_set(err, -ENOMEM, "console: out of memory");
    s->dev.ops = &stdio_ops;
    s->hooks = conf->hooks;
    s->loop = conf->loop;
    s->in_fd = fd_own(STDIN_FILENO, O_RDONLY);
    s->out_fd = fd_own(STDOUT_FILENO, O_WRONLY);
    input_init(&s->in, s->loop, &s->dev, &input_ops, s);
    output_init(&s->out, s->loop, &s->dev, output_failed, s);

    if (s->in_fd >= 0 && isatty(s->in_fd)) {
        r = open_terminal(s, err);
        if (r < 0)
            goto close_fds;
    }
    if (s->in_fd >= 0) {
        r = input_attach(&s->in, s->in_fd, s->is_terminal);
        if (r < 0) {
            err_set(err, r, "console: standard input: %s", strerror(-r));
            goto close_terminal;
        }
    }
    if (s->out_fd >= 0)
        output_attach(&s->out, s->out_fd);
    *dev = &s->dev;
    return 0;

close_terminal:
    if (s->is_terminal)
        close_terminal(s);
close_fds:
    if (s->in_fd >= 0)
        close(s->in_fd);
    if (s->out_fd >= 0)
        close(s->out_fd);
    output_fini(&s->out);
    free(s);
    return r;
}
