/*
 * Which backing files an image may name. An image comes from anywhere, and what it names is opened with the rights of whoever runs vireo: so nothing is,
 * unless the command line or the host's list says so.
 *
 * The list: /etc/vireo/backing and $XDG_CONFIG_HOME/vireo/backing (~/.config/vireo/backing), a path a line; # begins a comment. A path to a directory permits
 * what is below it; symbolic links are followed first, and what they lead to is what counts.
 */
#ifndef DISK_DISK_ALLOW_H
#define DISK_DISK_ALLOW_H

#include "disk/disk.h"

#define DISK_CHAIN_MAX 64 /* images */

/* paths: from the command line. Reads the host's list. */
int disk_allow_open(struct disk_allow **allow, const char *const *paths, size_t n, struct err *err) MUST_CHECK;
void disk_allow_close(struct disk_allow *allow);

/* `path` is absolute, or relative to the working directory; remote ones (nbd://) are permitted by what they begin with. allow may be NULL: nothing is. */
bool disk_allow_permits(const struct disk_allow *allow, const char *path);

#endif
