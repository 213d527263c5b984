/*
 * The guest that `vireo run` starts when no kernel is named: what tools/guest-prepare made, beside the installed vireo
 * (PREFIX/share/vireo/guest) or in the source tree that vireo was built in (guest/).
 */
#ifndef CLI_DEFAULT_GUEST_H
#define CLI_DEFAULT_GUEST_H

#include <limits.h>

#include "base/err.h"

/* No `quiet`: the kernel's first lines come from earlyprintk, long before its serial driver. */
#define DEFAULT_GUEST_APPEND "console=ttyS0,115200 earlyprintk=ttyS0,115200"

struct default_guest {
    char kernel[PATH_MAX];
    char initrd[PATH_MAX];
};

/* 0, or -EAGAIN and how to prepare it. */
int default_guest_find(struct default_guest *guest, struct err *err) MUST_CHECK;

#endif
