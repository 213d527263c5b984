/*
 * What is under an image: a file or block device of the host's (file_host.c), or what a server has, where the path says so
 * (protocols.def, file_net.h). Asynchronous requests, and plain calls for the little that opening and closing need. Knows no format.
 *
 * Threads: those of disk.h. Requests are disk_requests, but offsets and lengths are bytes as the file has them: any alignment, and writes may go
 * beyond the end, which moves.
 */
#ifndef DISK_FILE_H
#define DISK_FILE_H

#include "disk/disk.h"

struct file;

/*
 * Opens conf->path, locks it and measures it. -EBUSY with a message where it is locked. Files of the host's have OFD locks: shared for readers,
 * exclusive for writers. Which protocol has what is in file_net.h.
 */
int file_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err) MUST_CHECK;
void file_close(struct file *file);

/* Bytes; of a block device too, which like an NBD export or a LUN has one size for good. As of the last completed request. */
uint64_t file_size(const struct file *file);

/* READ beyond the end gives zeroes. DISCARD punches a hole, ZERO with `unmap` does so too and without it keeps the room; both work everywhere. MAP: -ENOTSUP where
 * nobody knows. */
void file_submit(struct file *file, struct disk_request *req);

/* Waits, on the loop's thread, until one or more of the requests under way are complete, and completes them; at once where there is none. */
void file_wait(struct file *file);

/* The calling thread waits: all of it or -errno; a read beyond the end gives zeroes. */
int file_read(struct file *file, uint64_t offset, void *buf, size_t len) MUST_CHECK;
int file_write(struct file *file, uint64_t offset, const void *buf, size_t len) MUST_CHECK;
int file_sync(struct file *file) MUST_CHECK;
int file_truncate(struct file *file, uint64_t size) MUST_CHECK;

#endif
