/*
 * The file that a machine's state is saved to: a header, then blocks, each of a kind and with a number and up to STATE_FILE_BLOCK_MAX bytes, then an end.
 * What the blocks hold is their writers' business.
 *
 *   header   magic[8] "vireo-vm", version u32, 0 u32, id u64, XXH3 of these 24 bytes u64
 *   block    kind u32, length u32, number u64, XXH3 of the payload u64, XXH3 of these 24 bytes u64; the payload
 *   end      a block of kind STATE_FILE_END, without payload; its number is how many blocks came before. Nothing follows it.
 *
 * All little-endian. A block's header is hashed with the header's hash before it as the seed, and the file's first with the id: so a block that was changed,
 * left out, moved or brought from another file is found when it is read, before anybody uses what it holds, and a file that was cut short has no end.
 *
 * Hashes find accidents. A file that somebody made on purpose has the right ones, so that whoever takes a block apart still checks everything.
 *
 * Threads: one at a time. Descriptors are the caller's.
 */
#ifndef VM_STATE_FILE_H
#define VM_STATE_FILE_H

#include "base/err.h"

#define STATE_FILE_VERSION   1
#define STATE_FILE_HEADER    32
#define STATE_FILE_BLOCK_MAX (4 * MIB)
#define STATE_FILE_END       0

struct state_file_writer {
    int fd;
    uint64_t chain;  /* seed of the next block's hash */
    uint64_t blocks; /* so far */
    uint64_t bytes;
};

struct state_file_block {
    uint32_t kind;
    uint32_t len;
    uint64_t number;
    const uint8_t *data; /* until the next is read */
};

struct state_file_reader {
    int fd;
    uint64_t chain, blocks;
    uint8_t *data;
    size_t capacity;
    const char *name; /* the caller's, for messages */
};

/* Each of these writes at the descriptor's position; -errno of write(). `id`: any number, best one that no other file has. */
int state_file_begin(struct state_file_writer *w, int fd, uint64_t id) MUST_CHECK;
int state_file_put(struct state_file_writer *w, uint32_t kind, uint64_t number, const void *data,
                   size_t len) MUST_CHECK;
int state_file_end(struct state_file_writer *w) MUST_CHECK;

/* Reads and checks the header from the descriptor's position. -errno and one line that names the file. */
int state_file_open(struct state_file_reader *r, int fd, const char *name, struct err *err) MUST_CHECK;

/* The next block, which is as it was written: 1; 0 behind the last; -errno (-EPROTO: damaged) and one line. */
int state_file_next(struct state_file_reader *r, struct state_file_block *block, struct err *err) MUST_CHECK;

void state_file_close(struct state_file_reader *r);

#endif
