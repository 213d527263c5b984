/*
 * Reports of more than a line, for a person: text in a buffer, code of the guest's and of the host's among it. For engines to say in what
 * went wrong inside them.
 *
 * Threads: any.
 */
#ifndef ENGINE_LISTING_H
#define ENGINE_LISTING_H

#include "core/ram.h"
#include "x86/state.h"

/* What does not fit is cut off; the text always ends in a NUL. */
struct listing {
    char *buf;
    size_t len, room; /* bytes */
};

void listing_put(struct listing *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

/*
 * `len` bytes of code that run at `addr`, an instruction a line, at most `most` of them; code_size: 2, 4 or 8, as CS gives it. The one that
 * begins at address `mark` is marked; 0 for none.
 */
void listing_put_code(struct listing *t, const uint8_t *code, size_t len, uint64_t addr, unsigned code_size,
                      uint64_t most, uint64_t mark);

/* The registers as x86_state_print() has them, with a line's end. */
void listing_put_registers(struct listing *t, const struct x86_state *st);

/* The code size and the linear address of what comes next. */
unsigned listing_code_size(const struct x86_state *st);
uint64_t listing_linear_rip(const struct x86_state *st);

/* The guest's memory from linear address `lin` as its page tables map it: the bytes read, fewer than `len` where it ends. */
size_t listing_read(struct ram *ram, const struct x86_state *st, uint64_t lin, uint8_t *buf, size_t len);

#endif
