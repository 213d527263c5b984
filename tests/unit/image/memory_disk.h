/*
 * A disk in memory that says of each block what it is made of, does requests in random order, counts them, and fails where that is asked for.
 */
#ifndef TESTS_UNIT_IMAGE_MEMORY_DISK_H
#define TESTS_UNIT_IMAGE_MEMORY_DISK_H

#include "disk/disk.h"

struct memory_block {
    uint8_t kind;  /* enum disk_extent_kind */
    uint8_t depth; /* of the chain */
};

struct memory_disk {
    struct disk disk;
    uint8_t *data;
    struct memory_block *blocks; /* of DISK_BLOCK_SIZE */
    bool no_map;
    unsigned n[DISK_MAP + 1]; /* requests done */
    uint64_t bytes[DISK_MAP + 1];
    unsigned n_compressed, most_under_way;
    uint64_t fail_at; /* READ and WRITE of this byte fail with EIO; 0: none */
    uint64_t seed;
    struct loop_event event;
    struct disk_request *todo[256];
    unsigned n_todo;
};

/* All of it is a hole. */
struct memory_disk *memory_disk_new(struct loop *loop, uint64_t size, uint64_t seed);
/* Random content and kinds, in runs; data may be zeroes too. */
void memory_disk_fill(struct memory_disk *m);
void memory_disk_free(struct memory_disk *m);
uint32_t memory_disk_random(uint64_t *seed);

#endif
