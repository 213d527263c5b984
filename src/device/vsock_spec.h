/*
 * What --vsock says: "cid=3,unix=PATH", with `id=` for the control socket's sake. Pure.
 */
#ifndef DEVICE_VSOCK_SPEC_H
#define DEVICE_VSOCK_SPEC_H

#include "base/keyval.h"

struct vsock_spec {
    char id[KEYVAL_TEXT_MAX];   /* empty: none was given */
    uint64_t cid;               /* the guest's address */
    char path[KEYVAL_PATH_MAX]; /* of the host's socket */
};

/* The path is there, and short enough for every port's; -EINVAL and one line otherwise. Touches no file. */
int vsock_spec_parse(struct vsock_spec *spec, const char *text, struct err *err) MUST_CHECK;

#endif
