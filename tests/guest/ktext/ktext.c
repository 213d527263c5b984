/*
 * usage: ktext [--rounds N] [CASE...]
 *
 * For the guest's root only, since it changes what the kernel traces. Reports each case as a line of TAP with the number of results
 * checked. Exit status: 0, 1 when a case failed, 2 for wrong use.
 */
#include "ktext.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CPUS 16

struct worker {
    struct load *load;
    pthread_t thread;
    unsigned cpu;
    struct run run;
};

struct load {
    atomic_bool done;
    unsigned count;
    struct worker workers[CPUS];
};

void ktext_die(const char *what)
{
    fflush(stdout);
    perror(what);
    _exit(1);
}

void ktext_expect(struct run *r, const char *what, uint64_t got, uint64_t due)
{
    r->checked++;
    if (got != due && !r->wrong++)
        snprintf(r->first, sizeof(r->first), "%s: %llu for %llu", what, (unsigned long long)got,
                 (unsigned long long)due);
}

static int write_text(const char *path, int flags, const char *format, va_list arguments)
{
    char text[512];
    int length = vsnprintf(text, sizeof(text), format, arguments), fd = open(path, O_WRONLY | O_CLOEXEC | flags),
        status = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, (size_t)length) != length)
        status = -errno;
    close(fd);
    return status;
}

int ktext_try_write(const char *path, bool append, const char *format, ...)
{
    va_list arguments;
    int status;

    va_start(arguments, format);
    status = write_text(path, append ? O_APPEND : O_TRUNC, format, arguments);
    va_end(arguments);
    return status;
}

void ktext_write(const char *path, const char *format, ...)
{
    va_list arguments;
    int status;

    va_start(arguments, format);
    status = write_text(path, O_TRUNC, format, arguments);
    va_end(arguments);
    if (status) {
        errno = -status;
        ktext_die(path);
    }
}

char *ktext_read(const char *path)
{
    size_t length = 0, room = 65536;
    char *text = malloc(room);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (!text || fd < 0)
        ktext_die(path);
    while ((got = read(fd, text + length, room - length - 1)) > 0) {
        length += (size_t)got;
        if (length + 1 == room && !(text = realloc(text, room *= 2)))
            ktext_die(path);
    }
    if (got < 0)
        ktext_die(path);
    close(fd);
    text[length] = 0;
    return text;
}

unsigned ktext_cpus(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    return count > CPUS ? CPUS : (unsigned)count;
}

static void on_cpu(unsigned cpu)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one))
        ktext_die("sched_setaffinity");
}

static void on_any_cpu(void)
{
    cpu_set_t all;

    memset(&all, 0xff, sizeof(all));
    if (sched_setaffinity(0, sizeof(all), &all))
        ktext_die("sched_setaffinity");
}

void ktext_getppid(unsigned times)
{
    for (unsigned cpu = 0; cpu < ktext_cpus(); cpu++) {
        on_cpu(cpu);
        for (unsigned i = 0; i < times; i++)
            syscall(SYS_getppid);
    }
    on_any_cpu();
}

__attribute__((noinline, aligned(32))) uint64_t ktext_probed(uint64_t n)
{
    __asm__ volatile("" : "+r"(n));
    return 3 * n + 1;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    pid_t parent = getppid();
    int ends[2];

    on_cpu(w->cpu);
    if (pipe(ends))
        ktext_die("pipe");
    for (uint64_t i = 0; !atomic_load(&w->load->done); i++) {
        uint64_t back = 0;

        ktext_expect(&w->run, "getppid", (uint64_t)syscall(SYS_getppid), (uint64_t)parent);
        if (write(ends[1], &i, sizeof(i)) != sizeof(i) || read(ends[0], &back, sizeof(back)) != sizeof(back))
            ktext_die("a pipe");
        ktext_expect(&w->run, "a pipe", back, i);
        ktext_expect(&w->run, "a probed function", ktext_probed(i), 3 * i + 1);
        if (i % 16 == 0)
            sched_yield();
    }
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

struct load *ktext_load_start(void)
{
    struct load *load = calloc(1, sizeof(*load));

    if (!load)
        ktext_die("calloc");
    load->count = ktext_cpus();
    for (unsigned i = 0; i < load->count; i++) {
        load->workers[i].load = load;
        load->workers[i].cpu = i;
        if (pthread_create(&load->workers[i].thread, NULL, work, &load->workers[i]))
            ktext_die("pthread_create");
    }
    return load;
}

void ktext_load_stop(struct load *load, struct run *r)
{
    atomic_store(&load->done, true);
    for (unsigned i = 0; i < load->count; i++) {
        struct run *part = &load->workers[i].run;

        pthread_join(load->workers[i].thread, NULL);
        r->checked += part->checked;
        if (part->wrong && !r->wrong)
            memcpy(r->first, part->first, sizeof(r->first));
        r->wrong += part->wrong;
    }
    free(load);
}

static bool wanted(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

/* Returns whether it passed. */
static bool run_case(const struct ktext_case *c, unsigned number, unsigned rounds)
{
    struct run r = {.rounds = rounds};
    bool good;

    c->run(&r);
    good = r.skip || (r.checked && !r.wrong);
    printf("%sok %u - %s # %s%s", good ? "" : "not ", number, c->name, r.skip ? "SKIP " : "", r.skip ? r.skip : "");
    if (!r.skip)
        printf("%llu of %llu results wrong%s%s", (unsigned long long)r.wrong, (unsigned long long)r.checked,
               r.wrong ? ", the first one " : "", r.first);
    putchar('\n');
    fflush(stdout);
    return good;
}

int main(int argc, char **argv)
{
    const struct ktext_case *const groups[] = {ktext_switch, ktext_trace, ktext_bpf};
    unsigned rounds = 64, count = 0;
    bool good = true;

    argv++;
    if (*argv && !strcmp(*argv, "--rounds")) {
        rounds = argv[1] ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
        argv += 2;
        if (!rounds) {
            fprintf(stderr, "ktext: --rounds takes a number from 1 up\n");
            return 2;
        }
    }
    mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL); /* may be there */
    mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        for (const struct ktext_case *c = groups[i]; c->name; c++)
            if (wanted(c->name, argv) && !run_case(c, ++count, rounds))
                good = false;
    printf("1..%u\n", count);
    return good && count ? 0 : 1;
}
