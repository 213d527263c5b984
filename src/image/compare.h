/*
 * Compares what two disks hold, with many requests under way. Where one is shorter, the rest of the other must be zeroes; what neither has is not read.
 */
#ifndef IMAGE_COMPARE_H
#define IMAGE_COMPARE_H

#include "disk/disk.h"
#include "image/job.h"

struct image_compare_conf {
    struct disk *a, *b; /* of one loop, which the caller has to itself; nobody writes to them */
    bool strict;        /* sizes must be the same, and what is data in one is data in the other, zeroes too */
    unsigned depth;     /* pairs of requests under way; 0: 16 */
    size_t chunk;       /* bytes a request; 0: 256 KiB */
    const struct image_job *job;
};

enum image_difference {
    IMAGE_SAME,
    IMAGE_OTHER_CONTENT,
    IMAGE_OTHER_SIZE,       /* strict */
    IMAGE_OTHER_ALLOCATION, /* strict */
};

struct image_compare_result {
    enum image_difference difference;
    uint64_t offset; /* bytes: the first difference, whatever it is; of the sizes: the smaller one */
};

/* Blocks. 0, whether they are the same or not; or an error of reading. */
int image_compare(const struct image_compare_conf *conf, struct image_compare_result *result,
                  struct err *err) MUST_CHECK;

#endif
