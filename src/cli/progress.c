#include "cli/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define EVERY     (100 * NS_PER_MS)
#define SMOOTHING 3.0 /* seconds that the rate is of, more or less */
#define BAR_MOST  40

struct progress {
    struct image_job job;
    volatile sig_atomic_t stop;
    struct loop *loop;
    struct loop_fd signals;
    sigset_t before;
    const char *what;
    bool shown; /* there is a bar to take away */
    bool show;
    int64_t last; /* ns: when it was shown */
    uint64_t last_done;
    double rate; /* bytes a second; 0: not known yet */
};

static const char *amount(double bytes, char buf[16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    unsigned i = 0;

    for (; bytes >= 1000 && i + 1 < ARRAY_SIZE(units); i++)
        bytes /= 1024;
    snprintf(buf, 16, bytes < 10 && i ? "%.1f %s" : "%.0f %s", bytes, units[i]);
    return buf;
}

static void time_left(const struct progress *p, uint64_t left, char buf[24])
{
    double seconds = p->rate > 0 ? (double)left / p->rate : -1;

    if (seconds < 0 || seconds > 360000)
        snprintf(buf, 24, "-:-- left");
    else if (seconds < 3600)
        snprintf(buf, 24, "%u:%02u left", (unsigned)seconds / 60, (unsigned)seconds % 60);
    else
        snprintf(buf, 24, "%u:%02u:%02u left", (unsigned)seconds / 3600, (unsigned)seconds / 60 % 60,
                 (unsigned)seconds % 60);
}

static unsigned terminal_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static void show(struct progress *p, uint64_t done, uint64_t total)
{
    char sums[2][16], rate[16], left[24], text[128], bar[BAR_MOST + 1];
    double part = total ? (double)done / (double)total : 1;

    time_left(p, total - done, left);
    int len = snprintf(text, sizeof(text), " %3.0f %%  %s of %s  %s/s  %s", part * 100, amount((double)done, sums[0]),
                       amount((double)total, sums[1]), amount(p->rate, rate), left);
    int room = (int)terminal_columns() - len - (int)strlen(p->what) - 4;
    room = room < 0 ? 0 : room > BAR_MOST ? BAR_MOST : room;
    for (int i = 0; i < room; i++)
        bar[i] = i < part * room ? '#' : '.';
    bar[room] = '\0';
    fprintf(stderr, "\r%s [%s]%s\033[K", p->what, bar, text);
    fflush(stderr);
    p->shown = true;
}

static void on_signal(void *opaque, uint32_t events)
{
    struct progress *p = opaque;
    struct signalfd_siginfo info;

    if (read(p->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    p->stop = 1;
    /* It is on its way; who asks again does not want to wait for that. */
    sigprocmask(SIG_SETMASK, &p->before, NULL);
}

static void progress(void *opaque, uint64_t done, uint64_t total)
{
    struct progress *p = opaque;
    int64_t now = loop_now();

    if (now - p->last < EVERY)
        return;
    on_signal(p, EPOLLIN); /* work that does not return to the loop */
    double seconds = (double)(now - p->last) / NS_PER_SEC;
    double rate = done > p->last_done ? (double)(done - p->last_done) / seconds : 0;
    double weight = seconds < SMOOTHING ? seconds / SMOOTHING : 1;
    p->rate = p->rate > 0 ? p->rate + (rate - p->rate) * weight : rate;
    p->last = now;
    p->last_done = done;
    if (p->show)
        show(p, done < total ? done : total, total);
}

int progress_open(struct progress **out, const char *what, bool quiet, struct loop *loop, struct err *err)
{
    struct progress *p = calloc(1, sizeof(*p));
    sigset_t set;
    int r;

    *out = NULL;
    if (!p)
        return err_set(err, -ENOMEM, "out of memory");
    p->what = what;
    p->loop = loop;
    p->show = !quiet && isatty(STDERR_FILENO);
    p->last = loop_now();
    p->job = (struct image_job){.progress = progress, .opaque = p, .stop = &p->stop};
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &p->before);
    p->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .fn = on_signal, .opaque = p};
    r = p->signals.fd < 0 ? -errno : loop_fd_add(loop, &p->signals, EPOLLIN);
    if (r == 0) {
        *out = p;
        return 0;
    }
    err_set(err, r, "signals: %s", strerror(-r));
    if (p->signals.fd >= 0)
        close(p->signals.fd);
    sigprocmask(SIG_SETMASK, &p->before, NULL);
    free(p);
    return r;
}

void progress_close(struct progress *p)
{
    if (!p)
        return;
    if (p->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    loop_fd_remove(p->loop, &p->signals);
    close(p->signals.fd);
    sigprocmask(SIG_SETMASK, &p->before, NULL);
    free(p);
}

const struct image_job *progress_job(const struct progress *p)
{
    return &p->job;
}
