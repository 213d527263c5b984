/* libslirp, which is loaded by the first interface with user-mode NAT (base/library.h). */
#ifndef NET_USER_LIBRARY_H
#define NET_USER_LIBRARY_H

#include "base/err.h"

int user_library_load(struct err *err) MUST_CHECK;

#endif
