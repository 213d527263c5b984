/*
 * What is done to the images of a backing chain: one is written into the one below it, or gets another one below it. Either may end anywhere, also by SIGKILL
 * or a power cut: what is read through the image is always the same. Its snapshots, which have the same backing file, hold what they did, too: -EBUSY before anything has
 * changed, where one reads something from the backing file that the commit overwrites, or that the new backing file does not have.
 *
 * Threads: the loop's, which all disks share and whoever calls has to itself.
 */
#ifndef IMAGE_CHAIN_H
#define IMAGE_CHAIN_H

#include "disk/disk.h"
#include "image/job.h"

/*
 * Writes what `image` itself holds, which was opened without its backing file, into `backing`, which is made as long where it is shorter; when that is durable,
 * the image is emptied.
 */
int image_chain_commit(struct disk *image, struct disk *backing, const struct image_job *job,
                       struct err *err) MUST_CHECK;

/*
 * Copies into `image`, which is open with its backing chain, what `onto` has otherwise (NULL: nothing at all); when that is durable, the image names `name` of
 * `format` as its backing file (NULL: none). Afterwards `image` is only good for closing.
 */
int image_chain_rebase(struct disk *image, struct disk *onto, const char *name, const char *format,
                       const struct image_job *job, struct err *err) MUST_CHECK;

#endif
