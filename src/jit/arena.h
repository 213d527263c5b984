/*
 * Memory for generated code that is never writable and executable at one address: shared pages mapped twice, written through one
 * alias and run through the other. Pieces are given out one after another and taken back all at once. Knows no guest.
 *
 * Threads: one at a time allocates and writes; code may run on any thread while others do so, until jit_arena_reset().
 */
#ifndef JIT_ARENA_H
#define JIT_ARENA_H

#include <stdbool.h>

#include "base/err.h"

#define JIT_ARENA_ALIGN 16 /* bytes, of every piece */

struct jit_arena {
    uint8_t *write;      /* PROT_READ | PROT_WRITE */
    const uint8_t *exec; /* PROT_READ | PROT_EXEC, the same pages */
    size_t size, used;   /* bytes */
};

/* size: bytes, rounded up to whole pages; backed by the host as it is touched. */
int jit_arena_open(struct jit_arena *arena, size_t size, struct err *err) MUST_CHECK;
void jit_arena_close(struct jit_arena *arena);

/* Room for `len` bytes of code at its writable address, or NULL when full. */
uint8_t *jit_arena_alloc(struct jit_arena *arena, size_t len);

/* Gives back all but `used` bytes of the piece allocated last. */
void jit_arena_trim(struct jit_arena *arena, uint8_t *piece, size_t used);

/* Takes every piece back and gives the pages back to the host. No thread may run code of the arena, now or later. */
void jit_arena_reset(struct jit_arena *arena);

/* Where the code written at `write` is run. */
static inline const uint8_t *jit_arena_exec(const struct jit_arena *arena, const uint8_t *write)
{
    return arena->exec + (write - arena->write);
}

/* Whether the address `pc` lies in code of this arena. */
static inline bool jit_arena_holds(const struct jit_arena *arena, uintptr_t pc)
{
    return pc - (uintptr_t)arena->exec < arena->size;
}

#endif
