/*
 * The guest that `vireo run` starts when no kernel is named: what tools/guest-prepare made, beside the installed vireo
 * (PREFIX/share/vireo/guest) or in the source tree that vireo was built in (guest/).
 */
#ifndef CLI_DEFAULT_GUEST_H
#define CLI_DEFAULT_GUEST_H

#include <limits.h>

#include "base/err.h"

struct default_guest {
    char kernel[PATH_MAX];
    char initrd[PATH_MAX];
};

/* 0, or -EAGAIN and how to prepare it. */
int default_guest_find(struct default_guest *guest, struct err *err) MUST_CHECK;

/*
 * Its command line, the caller's to free(): the console, the size of the terminal on standard input where that is the console
 * (vireo.tty=ROWSxCOLUMNS: a serial line has no way to tell), and `more`, which may be NULL. NULL: out of memory.
 */
char *default_guest_append(const char *console, const char *more) MUST_CHECK;

#endif
