/*
 * oracle - random user-mode instruction sequences on the host's CPU and on an engine, compared.
 *
 *   oracle [--count N] [--seed S] [--engine NAME] [--single-step] [--self] [--keep-going] [--print]
 *
 * Sequence i of a run has seed S + i, so `--seed X --count 1` repeats one. Natively it runs once; on the engine several times, and each
 * must end like the host (guest.h). On a difference it is made as small as it still differs,
 * and printed. --single-step sets TF, and compares registers behind each instruction too. --self compares the host with itself: what the generator must pass before it may judge an engine.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "compare.h"
#include "gen.h"
#include "guest.h"
#include "native.h"

struct oracle {
    uint64_t count, seed;
    const char *engine;
    bool single_step, self, keep_going, print;
    struct forms forms[2];       /* of 64-bit and of 32-bit code */
    struct native native, other; /* other: the second host under --self */
    struct guest guest;
    struct seq seqs[NATIVE_BATCH];
    uint64_t passed, failed, lost; /* lost: the host did not come back, so there is nothing to compare with */
};

static void generate(struct oracle *o, uint64_t seed, unsigned i)
{
    gen_sequence(o->forms, seed, &o->seqs[i], &o->native.runs[i]);
    o->native.runs[i].single_step = o->single_step;
}

/* The job once more on the host: what of it differs from its `out`. */
static unsigned compare_self(struct oracle *o, const struct seq *seq, const struct seq_run *job, FILE *out)
{
    struct seq_run *again = &o->other.runs[0];

    *again = *job;
    if (native_start(&o->other, 1) || native_wait(&o->other, 1))
        again->out.lost = true;
    return compare_results(seq, job, &again->out, out);
}

/* The job on the engine: the number of differences in the first pass that has any. */
static unsigned compare_engine(struct oracle *o, const struct seq *seq, const struct seq_run *job, FILE *out)
{
    if (o->self)
        return compare_self(o, seq, job, out);
    guest_run(&o->guest, job);
    for (unsigned pass = 0; pass < GUEST_PASSES; pass++) {
        unsigned n = compare_results(seq, job, &o->guest.out[pass], NULL);
        if (!n)
            continue;
        if (out) {
            fprintf(out, "seed %" PRIu64 ", pass %u of %u:\n", seq->seed, pass + 1, GUEST_PASSES);
            compare_results(seq, job, &o->guest.out[pass], out);
        }
        return n;
    }
    return 0;
}

/* Runs seq, whose state is in slot 0's run, on both sides: the number of differences. */
static unsigned try(struct oracle *o, const struct seq *seq, FILE *out)
{
    struct seq_run *run = &o->native.runs[0];
    uint32_t undef[SEQ_MAX_INSNS + 1];

    if (!seq_assemble(seq, run->code, NULL) || !seq_undefined(seq, undef))
        return 0;
    if (native_start(&o->native, 1) || native_wait(&o->native, 1))
        return 0;
    return compare_engine(o, seq, run, out);
}

/* Drops whatever can be dropped while the two still differ. */
static void minimise(struct oracle *o, struct seq *seq)
{
    bool smaller = true;

    while (smaller) {
        smaller = false;
        for (unsigned g = seq->n_groups; g-- > 0;) {
            struct seq shorter = *seq;
            seq_drop(&shorter, g);
            if (shorter.n == seq->n || !try(o, &shorter, NULL))
                continue;
            *seq = shorter;
            smaller = true;
        }
    }
}

static void print_state(const struct seq_state *st)
{
    static const char *const gpr[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};

    for (unsigned i = 0; i < X86_N_GPR; i++)
        printf("  %s %016" PRIx64 "%s", gpr[i], st->gpr[i], i % 4 == 3 ? "\n" : "");
    printf("  rflags %" PRIx64 "  fcw %04x fsw %04x ftw %02x  mxcsr %04x\n", st->rflags, st->fcw, st->fsw, st->ftw,
           st->mxcsr);
}

static void print_end(const struct seq_run *run)
{
    static const char *const pages[] = {"data", "data + 4096", "stack", "code + 4096"};
    static const char *const states[] = {"writable", "read only", "absent"};

    for (unsigned i = 0; i < SEQ_N_PAGES; i++)
        if (run->pages[i] != SEQ_PAGE_RW)
            printf("  %s is %s\n", pages[i],
                   i == SEQ_PAGE_CODE1 && run->pages[i] == SEQ_PAGE_RO ? "NX" : states[run->pages[i]]);
    printf("  ends with vector %u at %" PRIx64 "\n", run->out.state.vector, run->out.state.rip);
}

static void report(struct oracle *o, uint64_t seed)
{
    struct seq *seq = &o->seqs[0];

    printf("\nseed %" PRIu64 " differs", seed);
    generate(o, seed, 0);
    unsigned before = seq->n;
    if (!try(o, seq, NULL)) {
        printf(", but not when it is run alone\n");
        return;
    }
    minimise(o, seq);
    printf("; %u of %u instructions left:\n", seq->n, before);
    seq_print(seq, stdout);
    try(o, seq, stdout);
    print_end(&o->native.runs[0]);
    printf("from:\n");
    print_state(&o->native.runs[0].in);
    fflush(stdout);
}

/* One that was lost, alone: others in its batch are lost with the one that took the child away. Takes the room of the first. */
static bool again(struct oracle *o, unsigned i)
{
    o->native.runs[0] = o->native.runs[i];
    if (native_start(&o->native, 1) || native_wait(&o->native, 1))
        return false;
    o->native.runs[i] = o->native.runs[0];
    return !o->native.runs[i].out.lost;
}

/* A batch: natively first, then one by one on the engine. Differing seeds are collected, since reporting one needs the batch's room. */
static int batch(struct oracle *o, uint64_t seed, unsigned n)
{
    uint64_t bad[NATIVE_BATCH];
    unsigned n_bad = 0;

    for (unsigned i = 0; i < n; i++)
        generate(o, seed + i, i);
    if (native_start(&o->native, n) || native_wait(&o->native, n))
        return -EPIPE;
    for (unsigned i = 0; i < n; i++) {
        if (o->print) {
            printf("seed %" PRIu64 ":\n", seed + i);
            seq_print(&o->seqs[i], stdout);
            print_end(&o->native.runs[i]);
        }
        if (o->native.runs[i].out.lost && !again(o, i))
            o->lost++;
        else if (compare_engine(o, &o->seqs[i], &o->native.runs[i], stdout)) /* at once: alone it may not differ */
            bad[n_bad++] = seed + i;
        else
            o->passed++;
    }
    o->failed += n_bad;
    for (unsigned i = 0; i < n_bad && (i == 0 || o->keep_going); i++)
        report(o, bad[i]);
    return n_bad && !o->keep_going ? 1 : 0;
}

static void progress(const struct oracle *o, uint64_t done, struct timespec begin)
{
    struct timespec now;

    if (!isatty(STDERR_FILENO))
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double s = (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9;
    fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " sequences, %.0f a second, %" PRIu64 " differ ", done, o->count,
            s > 0 ? (double)done / s : 0, o->failed);
}

static int run(struct oracle *o)
{
    struct timespec begin;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t done = 0; done < o->count;) {
        unsigned n = o->count - done < NATIVE_BATCH ? (unsigned)(o->count - done) : NATIVE_BATCH;
        int r = batch(o, o->seed + done, n);
        done += n;
        if (done % (16 * NATIVE_BATCH) == 0 || done == o->count)
            progress(o, done, begin);
        if (r < 0)
            fprintf(stderr, "\nthe native side does not answer\n");
        if (r)
            break;
    }
    if (o->lost)
        printf("\n%" PRIu64 " could not be compared: the host's process was lost", o->lost);
    printf("\n%" PRIu64 " passed, %" PRIu64 " failed\n", o->passed, o->failed);
    return o->failed || o->passed + o->lost < o->count || o->lost > 1 + o->count / 10000;
}

static bool parse_number(const char *text, uint64_t *val)
{
    char *end;

    errno = 0;
    *val = strtoull(text, &end, 0);
    return *text && *text != '-' && !*end && !errno;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: oracle [--count N] [--seed S] [--engine NAME] [--single-step] [--self] [--keep-going] [--print]\n");
    return 2;
}

static int parse(struct oracle *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"count", required_argument, NULL, 'c'},  {"seed", required_argument, NULL, 's'},
        {"engine", required_argument, NULL, 'e'}, {"single-step", no_argument, NULL, 't'},
        {"self", no_argument, NULL, 'S'},         {"keep-going", no_argument, NULL, 'k'},
        {"print", no_argument, NULL, 'p'},        {0}};
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == 'c' && parse_number(optarg, &o->count))
            continue;
        if (opt == 's' && parse_number(optarg, &o->seed))
            continue;
        if (opt == 'e')
            o->engine = optarg;
        else if (opt == 't')
            o->single_step = true;
        else if (opt == 'S')
            o->self = true;
        else if (opt == 'k')
            o->keep_going = true;
        else if (opt == 'p')
            o->print = true;
        else
            return usage();
    }
    return optind == argc ? 0 : usage();
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct oracle *o = calloc(1, sizeof(*o));
    int status = 1;

    if (!o)
        return 1;
    o->count = 10000;
    o->seed = 1;
    o->engine = "interp";
    status = parse(o, argc, argv);
    if (status)
        goto free_oracle;
    status = 1;
    if (forms_open(&o->forms[0], false) || forms_open(&o->forms[1], true)) {
        fprintf(stderr, "no memory for the table of forms\n");
        goto close_forms;
    }
    if (native_open(&o->native)) {
        fprintf(stderr, "cannot start the native side\n");
        goto close_forms;
    }
    if (o->self ? native_open(&o->other) : guest_open(&o->guest, o->engine, &err)) {
        fprintf(stderr, "oracle: %s\n", o->self ? "cannot start the second native side" : err.msg);
        goto close_native;
    }
    status = run(o);
    if (o->self)
        native_close(&o->other);
    else
        guest_close(&o->guest);
close_native:
    native_close(&o->native);
close_forms:
    forms_close(&o->forms[1]);
    forms_close(&o->forms[0]);
free_oracle:
    free(o);
    return status;
}
