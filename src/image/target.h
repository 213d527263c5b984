/*
 * A file that is whole or absent: made where nobody sees it, and put in its place when it is done. Whatever ends the process before that, SIGKILL and a power
 * cut among them, leaves the place as it was.
 */
#ifndef IMAGE_TARGET_H
#define IMAGE_TARGET_H

#include <stdbool.h>

#include "base/err.h"

struct image_target;

/*
 * path: where it is to be. -EEXIST where something is there already, unless `replace`, which puts the new file in its place, atomically. Remote places
 * (nbd://) and block devices are written in place: they are what is there already, and -EINVAL without `replace`.
 */
int image_target_open(struct image_target **target, const char *path, bool replace, struct err *err) MUST_CHECK;

/* What to make and open meanwhile; for disk_create(), the file is there and empty. Names in messages are the one that open was given. */
const char *image_target_path(const struct image_target *target);
bool image_target_in_place(const struct image_target *target);

/* With the file closed: syncs it, puts it in its place, and syncs the directory. */
int image_target_commit(struct image_target *target, struct err *err) MUST_CHECK;

/* What was not committed is gone. */
void image_target_close(struct image_target *target);

#endif
