/*
 * The decoded-instruction cache of one vCPU: blocks of straight-line code within a page, found by physical address and mode, in an
 * arena that is emptied when full.
 *
 * A block remembers its page's code version (ram.h) and its own bytes: when the version has moved, the bytes are compared, so data
 * close to code costs a comparison and not a decode. An instruction that crosses a page is a block of its own, which
 * looks up its second page at each entry.
 *
 * SMP: a store must be looked at once a page holds decoded code, so before the first decode from a page, all vCPUs
 * drop their TLBs' write tags for it. code_mark() sets RAM_PAGE_CODE (no new tags from here), asks every vCPU inside run(), waits,
 * and sets RAM_PAGE_MARKED; a vCPU that waits for something itself answers requests meanwhile, one outside run() notices the new epoch
 * when it enters.
 *
 * Within a marked page a store counts if code was decoded from one of the granules it touches. A block's are claimed when its length is
 * known, and its bytes compared after that with those it was decoded from: claim, then read.
 *
 * A page that is written often is unmarked, and its version moved on: whoever still holds blocks of it must mark and claim anew before
 * it believes their bytes. Each marking makes the next unmarking rarer, for the sake of pages where code and data live side by side.
 *
 * Threads: the vCPU's own, but for the request flags.
 */
#ifndef ENGINE_INTERP_CODE_H
#define ENGINE_INTERP_CODE_H

#include "engine/interp/bind.h"

#define CODE_BLOCK_INSNS 64 /* at most: bounds the time between looks at the pins */

struct code_block {
    struct code_block *next; /* in its hash bucket */
    uint64_t gpa;            /* of the first byte */
    const uint8_t *host;     /* the same in host memory */
    _Atomic uint32_t *version;
    uint32_t version_seen;
    uint16_t n;
    uint16_t len;     /* bytes from the first instruction to behind the last */
    uint16_t src_len; /* bytes in `src` from the first page */
    uint16_t link_at[2];
    uint8_t mode; /* code size; CODE_REAL */
    bool chains;  /* what follows is in the same mode and mapping */
    bool crosses; /* its only instruction ends on the next page, at gpa2 */
    uint8_t next_link;
    uint64_t gpa2;
    struct code_block *link[2]; /* blocks that followed it, at offset link_at of the same page */
    const uint8_t *src;         /* the bytes it was decoded from */
    struct insn insn[];
};

int code_open(struct interp *c) MUST_CHECK; /* 0 or -ENOMEM */
void code_close(struct interp *c);

/* Forgets every block. Not while one runs. */
void code_flush(struct interp *c);

/* The block at c->st.rip. Raises what fetching raises, with c->cur NULL. Valid until the next call here. */
struct code_block *code_find(struct interp *c);

/* As code_find(), after `prev`, which ran to its end, `chains`, and was left in the mode it began in. */
struct code_block *code_follow(struct interp *c, struct code_block *prev);

/*
 * This vCPU has written [host, host + len): moves the page's code version on if code was decoded from there, and ends the current block
 * behind c->cur if it lies on that page too.
 */
void code_wrote(struct interp *c, const uint8_t *host, uint64_t len);

/* The current instruction is about to write there by itself: code_wrote() is due when it has, before the next instruction. */
void code_writing(struct interp *c, const uint8_t *host, uint64_t len);
void code_written(struct interp *c);

/*
 * Whether a page with such flags is taken for data after so many stores: UNMARK_EVERY times two to the power of UNMARK_GROWTH for each time it
 * was marked.
 */
#define CODE_UNMARK_EVERY  8u
#define CODE_UNMARK_GROWTH 3

static inline bool code_is_data(uint8_t flags, uint32_t stores)
{
    uint32_t every = CODE_UNMARK_EVERY << (CODE_UNMARK_GROWTH * (flags / RAM_PAGE_MARKS));
    return (stores & (every - 1)) == 0;
}

/* Nothing of the current block runs behind c->cur. */
void code_stop(struct interp *c);

/*
 * Sees to it that every store to the page is looked at by code_wrote(), from now until its code version moves. So the caller takes the version
 * first, then marks, then claims (ram_claim_code()), then looks at the bytes.
 */
void code_mark(struct interp *c, const uint8_t *host, uint64_t gpa);

/* Other vCPUs' requests: code_answer() when c->code_request is set; enter and leave around run(). */
void code_answer(struct interp *c);
void code_enter(struct interp *c);
void code_leave(struct interp *c);

#endif
