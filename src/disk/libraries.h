/* libnbd and libiscsi, which are loaded by whoever has a disk on such a server (base/library.h). */
#ifndef DISK_LIBRARIES_H
#define DISK_LIBRARIES_H

#include "base/err.h"

int libraries_load_nbd(struct err *err) MUST_CHECK;
int libraries_load_iscsi(struct err *err) MUST_CHECK;

#endif
