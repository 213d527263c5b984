/*
 * The thin images that vireo has made, or opened for a VM: a list of this user's, by which those that share a file system find each other. A line an image,
 * "FORMAT PATH", in $XDG_STATE_HOME/vireo/images (~/.local/state/vireo/images). Nothing depends on it: where it cannot be read or written there
 * is none, and anybody may edit or remove it.
 */
#ifndef DISK_DISK_KNOWN_H
#define DISK_DISK_KNOWN_H

#define DISK_KNOWN_MAX 4096 /* images; then the older half goes */

/* path: with symbolic links followed. Does nothing for one that is there already. */
void disk_known_add(const char *format, const char *path);

/* Calls fn for each, oldest first. */
void disk_known_each(void (*fn)(void *opaque, const char *format, const char *path), void *opaque);

#endif
