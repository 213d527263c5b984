/*
 * File descriptors that came from outside. Standard input and output are often shared with other processes, and
 * O_NONBLOCK belongs to what is shared: setting it would break them. So vireo opens its own way to the same terminal or
 * pipe, and where it may not, writes only as much as surely fits.
 */
#ifndef CONSOLE_FD_H
#define CONSOLE_FD_H

#include <sys/types.h>

#include "base/util.h"

/* A close-on-exec descriptor for what `fd` refers to, not blocking where possible. flags: O_RDONLY or O_WRONLY. -errno. */
int fd_own(int fd, int flags) MUST_CHECK;

/* Bytes written, at least one; -EAGAIN where that would block; another -errno. Never raises SIGPIPE for a socket. */
ssize_t fd_write(int fd, const void *buf, size_t len) MUST_CHECK;

/* Bytes read; 0 at the end; -EAGAIN where nothing is there; another -errno. */
ssize_t fd_read(int fd, void *buf, size_t len) MUST_CHECK;

#endif
