/* SHA-256 of files. */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include "image/job.h"

#define DIGEST_HEX 65 /* with its end */

/* Reads the file from its first byte to its last, past no cache. job may be NULL; progress is told from *done on, which moves, of `total`. */
int digest_file(const char *path, char hex[DIGEST_HEX], const struct image_job *job, uint64_t *done, uint64_t total,
                struct err *err) MUST_CHECK;

#endif
