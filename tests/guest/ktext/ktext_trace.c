/* ftrace, events, and probes in the kernel's text and in a program's. Each counts getppid() or ktext_probed() exactly. */
#include "ktext.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#define TRACING "/sys/kernel/tracing/"
#define SYSCALL "__do_sys_getppid"
#define CALLS   50u

/* Lines of the trace that hold a text. */
static unsigned traced(const char *text)
{
    char *trace = ktext_read(TRACING "trace");
    unsigned count = 0;

    for (char *at = trace; (at = strstr(at, text)); at++)
        count++;
    free(trace);
    return count;
}

/* The hits that a profile ("EVENT HITS MISSED", or with the file's name in front) has for our event. */
static unsigned long hits(const char *path, const char *event)
{
    char *profile = ktext_read(path), *at = strstr(profile, event);
    unsigned long count = at ? strtoul(at + strlen(event), NULL, 10) : ~0ul;

    free(profile);
    return count;
}

/* Switches something on and off, and counts calls without load. */
static void count_traced(struct run *r, const char *text, void (*turn)(bool on))
{
    for (unsigned i = 0; i < 4; i++) {
        bool on = i % 2 == 0;

        ktext_write(TRACING "trace", "\n");
        turn(on);
        ktext_getppid(CALLS);
        ktext_expect(r, "traced calls", traced(text), on ? CALLS * ktext_cpus() : 0);
    }
}

static void turn_tracer(bool on)
{
    ktext_write(TRACING "current_tracer", "%s", on ? "function" : "nop");
}

/* The function tracer: first one function, exactly; then thousands (all, where there is time), on and off under load. */
static void function(struct run *r)
{
    struct load *load;

    ktext_write(TRACING "set_ftrace_filter", "%s\n", SYSCALL);
    count_traced(r, SYSCALL, turn_tracer);
    ktext_write(TRACING "set_ftrace_filter", r->rounds < 64 ? "s*\n" : "*\n");
    load = ktext_load_start();
    for (unsigned i = 0; i < 2 + r->rounds / 8; i++)
        turn_tracer(i % 2 == 0);
    turn_tracer(false);
    ktext_load_stop(load, r);
    ktext_write(TRACING "set_ftrace_filter", "%s\n", SYSCALL);
    count_traced(r, SYSCALL, turn_tracer);
    ktext_write(TRACING "set_ftrace_filter", "\n");
    ktext_write(TRACING "trace", "\n");
}

static void turn_event(bool on)
{
    ktext_write(TRACING "events/syscalls/sys_enter_getppid/enable", "%d", on);
}

/* Events: a static key and a static call each. */
static void events(struct run *r)
{
    struct load *load;

    count_traced(r, "sys_getppid()", turn_event);
    load = ktext_load_start();
    for (unsigned i = 0; i < r->rounds; i++) {
        ktext_write(TRACING "events/irq/enable", "%u", (i + 1) % 2);
        turn_event(i % 3 == 0);
    }
    ktext_write(TRACING "events/enable", "0");
    ktext_load_stop(load, r);
    count_traced(r, "sys_getppid()", turn_event);
    ktext_write(TRACING "trace", "\n");
}

/* What a probe is on, called CALLS times on each CPU. */
static void call_probed(struct run *r, bool user)
{
    ktext_getppid(user ? 0 : CALLS);
    for (unsigned i = 0; user && i < CALLS * ktext_cpus(); i++)
        ktext_expect(r, "a probed function", ktext_probed(i), 3 * (uint64_t)i + 1);
}

/* A probe, set and switched under load, then exact without, then taken away, again and again. */
static void probe(struct run *r, bool user, const char *definition)
{
    const char *list = user ? TRACING "uprobe_events" : TRACING "kprobe_events";
    const char *profile = user ? TRACING "uprobe_profile" : TRACING "kprobe_profile";

    for (unsigned i = 0; i < (r->rounds + 7) / 8; i++) {
        struct load *load;
        unsigned long before;

        if (ktext_try_write(list, true, "%s\n", definition))
            ktext_die(definition);
        load = ktext_load_start();
        for (unsigned n = 0; n < 7; n++)
            ktext_write(TRACING "events/ktext/enable", "%u", (n + 1) % 2);
        ktext_load_stop(load, r);
        before = hits(profile, " probe ");
        call_probed(r, user);
        ktext_expect(r, "hits", hits(profile, " probe ") - before, CALLS * ktext_cpus());
        ktext_write(TRACING "events/ktext/enable", "0");
        call_probed(r, user);
        ktext_expect(r, "hits", hits(profile, " probe ") - before, CALLS * ktext_cpus());
        if (ktext_try_write(list, true, "-:ktext/probe\n"))
            ktext_die("removing a probe");
    }
}

/* At a function's start, where ftrace's call is. */
static void kprobe(struct run *r)
{
    probe(r, false, "p:ktext/probe " SYSCALL);
}

/* At its end: the return address is replaced on the stack. */
static void kretprobe(struct run *r)
{
    probe(r, false, "r:ktext/probe " SYSCALL);
}

/* Inside, by INT3, or by a jump once the kernel has optimized it: behind ftrace's call of 5 bytes. */
static void kprobe_int3(struct run *r)
{
    ktext_write("/proc/sys/debug/kprobes-optimization", "0");
    probe(r, false, "p:ktext/probe " SYSCALL "+5");
    ktext_write("/proc/sys/debug/kprobes-optimization", "1");
    probe(r, false, "p:ktext/probe " SYSCALL "+5");
}

/* Where an address of this program lies in its file. */
static uint64_t file_offset(uint64_t address)
{
    const Elf64_Phdr *phdr = (const Elf64_Phdr *)getauxval(AT_PHDR);

    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        if (phdr[i].p_type == PT_LOAD && address - phdr[i].p_vaddr < phdr[i].p_filesz)
            return address - phdr[i].p_vaddr + phdr[i].p_offset;
    errno = ENOEXEC;
    ktext_die("the program's own file");
}

/* The kernel puts INT3 into a program that runs on all CPUs, and steps over it elsewhere; then also at the function's return. */
static void uprobe(struct run *r)
{
    char definition[128];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(definition, sizeof(definition), "%c:ktext/probe /proc/self/exe:0x%llx", "pr"[i],
                 (unsigned long long)file_offset((uintptr_t)ktext_probed));
        probe(r, true, definition);
    }
}

const struct ktext_case ktext_trace[] = {
    {"function", function},       {"events", events}, {"kprobe", kprobe}, {"kretprobe", kretprobe},
    {"kprobe_int3", kprobe_int3}, {"uprobe", uprobe}, {NULL, NULL},
};
