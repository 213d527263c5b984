/*
 * Paths that name a server: "nbd://host/export". A path is one if it begins with a scheme and "://"; a file of the host's with such a name is opened as
 * "./nbd://host". Pure.
 */
#ifndef DISK_FILE_PROTOCOL_H
#define DISK_FILE_PROTOCOL_H

#include <stdbool.h>

#include "base/err.h"

#define FILE_SCHEME_MAX 16 /* with its end */

/* Whether the path names a server; then its scheme, in lower case as written, empty where it is none that there could be. */
bool file_protocol_scheme(const char *path, char scheme[FILE_SCHEME_MAX]);
bool file_protocol_is(const char *path);

/* -EINVAL and a message that lists the schemes, where the path names a server by one that is none of protocols.def. */
int file_protocol_check(const char *path, struct err *err) MUST_CHECK;

/* The path's length without what follows a '?', which an ending that tells the format stands before. */
size_t file_protocol_length(const char *path);

/* The path as messages may show it: without the password. */
void file_protocol_show(const char *path, char *buf, size_t size);

#endif
