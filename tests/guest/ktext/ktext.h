/*
 * A kernel that changes its own text - static keys and calls, ftrace, kprobes, breakpoints in programs, compiled BPF - while each CPU runs
 * what is changed. Cases count: what is switched on counts every call that it should, what is off counts none.
 */
#ifndef KTEXT_H
#define KTEXT_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run {
    unsigned rounds; /* how often a case switches something; it divides by what that costs */
    uint64_t checked, wrong;
    char first[160];  /* the first wrong result, in words */
    const char *skip; /* why this kernel cannot run the case, or NULL */
};

struct ktext_case {
    const char *name;
    void (*run)(struct run *r);
};

extern const struct ktext_case ktext_switch[], ktext_trace[], ktext_bpf[];

/* A result, and what it had to be. */
void ktext_expect(struct run *r, const char *what, uint64_t got, uint64_t due);
/* Ends the program: what failed, and errno. */
_Noreturn void ktext_die(const char *what);

/* Writes a text to a file of the kernel's; returns 0 or -errno. With `append`, behind what is there. */
int ktext_try_write(const char *path, bool append, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same; ends the program when it fails. */
void ktext_write(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Reads a file whole, as a string to free. */
char *ktext_read(const char *path);

/*
 * The load: a thread on each CPU, which makes system calls and calls ktext_probed(), and checks what comes back. ktext_load_stop()
 * adds its results to the case's.
 */
struct load;
struct load *ktext_load_start(void);
void ktext_load_stop(struct load *load, struct run *r);

/* getppid(), so many times on each CPU. */
void ktext_getppid(unsigned times);
/* The number of CPUs. */
unsigned ktext_cpus(void);
/* What user probes are set on: returns 3 n + 1. */
uint64_t ktext_probed(uint64_t n);

#endif
