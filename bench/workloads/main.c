/*
 * bench-workloads: runs one workload and prints two lines that the harness reads and stamps with the host's clock:
 *
 *   bench: begin NAME
 *   bench: result NAME iterations N ns_per_op F checksum X
 *
 * The time in the second line is this system's own; where it differs from the host's, a guest's clock is wrong.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "workload.h"

static const struct {
    const char *group;
    const struct workload *workload;
} workloads[] = {
#define WORKLOAD(group, name) {#group, &name##_workload},
#include "workloads.def"
#undef WORKLOAD
};

#define WORKLOAD_COUNT (sizeof(workloads) / sizeof(workloads[0]))

static int usage(void)
{
    fputs(
        "usage: bench-workloads NAME [SCALE [CPUS]]   run a workload, its iterations divided by SCALE (1 to 1000000);\n"
        "                                             CPUS: 1 (default), or 2: also threads that stay on one CPU "
        "otherwise\n"
        "       bench-workloads --list                print for each its group, its name and what one operation is\n",
        stderr);
    return 2;
}

static int list(void)
{
    for (size_t i = 0; i < WORKLOAD_COUNT; i++)
        printf("%s %s %s\n", workloads[i].group, workloads[i].workload->name, workloads[i].workload->unit);
    return 0;
}

static const struct workload *find(const char *name)
{
    for (size_t i = 0; i < WORKLOAD_COUNT; i++)
        if (!strcmp(workloads[i].workload->name, name))
            return workloads[i].workload;
    return NULL;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int stay_on_this_cpu(void)
{
    int cpu = sched_getcpu();
    cpu_set_t set;

    if (cpu < 0)
        return -errno;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

static int measure(const struct workload *w, uint64_t n, bool stay)
{
    uint64_t start, ns, checksum = 0;
    void *state = NULL;
    int r;

    if (stay) {
        r = stay_on_this_cpu();
        if (r)
            return r;
    }
    r = w->setup(n, &state);
    if (r)
        return r;
    printf("bench: begin %s\n", w->name);
    fflush(stdout);
    start = now_ns();
    r = w->run(state, n, &checksum);
    ns = now_ns() - start;
    w->finish(state);
    if (r)
        return r;
    printf("bench: result %s iterations %" PRIu64 " ns_per_op %.3f checksum %016" PRIx64 "\n", w->name, n,
           (double)ns / (double)n, checksum);
    return fflush(stdout) ? -errno : 0;
}

/* A whole number from 1 to max; 0 when the text is anything else. */
static unsigned long number(const char *text, unsigned long max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    return !*end && end != text && value <= max ? value : 0;
}

int main(int argc, char **argv)
{
    const struct workload *w;
    unsigned long scale, cpus;
    int r;

    if (argc == 2 && !strcmp(argv[1], "--list"))
        return list();
    if (argc == 3 && !strcmp(argv[1], "--exit")) /* what the fork workload runs */
        return atoi(argv[2]);
    if (argc < 2 || argc > 4)
        return usage();
    w = find(argv[1]);
    if (!w) {
        fprintf(stderr, "bench-workloads: no workload '%s' (--list prints them)\n", argv[1]);
        return 2;
    }
    scale = argc > 2 ? number(argv[2], 1000000) : 1;
    cpus = argc > 3 ? number(argv[3], 2) : 1;
    if (!scale || !cpus)
        return usage();
    r = measure(w, w->iterations / scale ? w->iterations / scale : 1, w->one_cpu && cpus == 1);
    if (r) {
        fprintf(stderr, "bench-workloads: %s: %s\n", w->name, strerror(-r));
        return 1;
    }
    return 0;
}
