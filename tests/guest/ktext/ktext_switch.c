/* Static keys and static calls: jumps and calls that the kernel patches when a setting changes. */
#include "ktext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The key of scheduler statistics; while it is on, /proc/self/sched has rows of them. */
static void schedstats(struct run *r)
{
    struct load *load = ktext_load_start();

    for (unsigned i = 0; i < r->rounds; i++) {
        char *text;

        ktext_write("/proc/sys/kernel/sched_schedstats", "%u", i % 2);
        text = ktext_read("/proc/self/sched");
        ktext_expect(r, "rows of statistics", strstr(text, "wait_sum") != NULL, i % 2);
        free(text);
    }
    ktext_load_stop(load, r);
    ktext_write("/proc/sys/kernel/sched_schedstats", "0");
}

/* The models of preemption are static calls in every function that may sleep. */
static void preemption(struct run *r)
{
    static const char path[] = "/sys/kernel/debug/sched/preempt", *const models[] = {"none", "voluntary", "full"};
    struct load *load;

    if (ktext_try_write(path, false, "full") == -ENOENT) {
        r->skip = "no choice of preemption models";
        return;
    }
    load = ktext_load_start();
    for (unsigned i = 0; i < (r->rounds + 7) / 8; i++) {
        char *text, chosen[32] = "(";

        ktext_write(path, "%s", models[i % 3]);
        text = ktext_read(path);
        strcat(strcat(chosen, models[i % 3]), ")");
        ktext_expect(r, "the chosen model", strstr(text, chosen) != NULL, true);
        free(text);
    }
    ktext_load_stop(load, r);
    ktext_write(path, "voluntary");
}

const struct ktext_case ktext_switch[] = {{"schedstats", schedstats}, {"preemption", preemption}, {NULL, NULL}};
