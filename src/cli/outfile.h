/*
 * A file that appears whole or not at all. It is opened before the work whose outcome it will hold, so that a path that
 * cannot be written is known at once; it is put in place by a rename when it is complete. What is no regular file - /dev/full, a
 * FIFO - is written directly.
 */
#ifndef CLI_OUTFILE_H
#define CLI_OUTFILE_H

#include <stdbool.h>

#include "base/err.h"

struct outfile {
    int fd;
    const char *path; /* the caller's, for messages */
    char *target;     /* where it goes, symbolic links resolved; NULL: written directly */
    char *temporary;  /* beside target; NULL while the file has no name yet (O_TMPFILE) */
};

int outfile_open(struct outfile *f, const char *path, struct err *err) MUST_CHECK;

/* Writes all of it and puts it in place. -errno and a message, and nothing left behind, where that fails. */
int outfile_commit(struct outfile *f, const char *data, size_t len, struct err *err) MUST_CHECK;

/* Leaves nothing behind unless it was committed. */
void outfile_close(struct outfile *f);

#endif
