/*
 * Machines to save and load, for unit tests and fuzzers: a small board with whatever can be attached without a host's help, set up so that its timers
 * run and its interrupts are wired.
 *
 * Threads: one at a time.
 */
#ifndef TESTS_STATE_SAVED_H
#define TESTS_STATE_SAVED_H

#include "machine/machine_state.h"

#define SAVED_BLOCKS_MOST 64
#define SAVED_CPUS        2

/* A state in memory, taken apart. */
struct saved {
    unsigned n;
    struct saved_block {
        uint32_t kind;
        uint64_t number;
        uint8_t *data;
        size_t len;
    } blocks[SAVED_BLOCKS_MOST];
};

/* A machine on that engine; from a state, or as at power-on. timeout_ns: of a run. Aborts where it cannot be had. */
struct machine *saved_machine(const struct engine_type *engine, struct machine_state_source *source,
                              int64_t timeout_ns);

/* Lets a guest's driver have been there: every device of the board is at something. */
void saved_stir(struct machine *m);

void saved_take(struct machine *m, struct saved *out);
void saved_free(struct saved *s);

/* The descriptor of a file with these blocks, hashes and all. */
int saved_file(const struct saved *s);

/* Opens the state at the descriptor and loads it into a machine that is then *m, or NULL. 0 or -errno. */
int saved_load(int fd, const struct engine_type *engine, int64_t timeout_ns, struct machine **m, struct err *err);

#endif
