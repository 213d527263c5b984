/*
 * Requests one after the other, some of them under way at once, and how long they take: as `qemu-img bench` does it, so that the two can be compared.
 */
#ifndef IMAGE_BENCH_H
#define IMAGE_BENCH_H

#include "disk/disk.h"
#include "image/job.h"

struct image_bench_conf {
    struct disk *disk;
    enum disk_op op;      /* READ, WRITE, DISCARD */
    uint64_t count;       /* of requests */
    unsigned depth;       /* under way at once */
    uint64_t block;       /* bytes of each */
    uint64_t offset;      /* of the first */
    uint64_t step;        /* from one to the next, around the disk's end; 0: at random, in whole blocks */
    uint64_t flush_every; /* writes, after which nothing begins until a flush is done; 0: none */
    const struct image_job *job;
};

struct image_bench_result {
    int64_t ns; /* from the first request's begin to the last one's end */
    uint64_t flushes;
};

/* Blocks; has the disk's loop to itself. */
int image_bench(const struct image_bench_conf *conf, struct image_bench_result *result, struct err *err) MUST_CHECK;

#endif
