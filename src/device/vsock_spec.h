/*
 * What --vsock takes: "unix=PATH", or "unix=PATH,cid=3" (device/virtio_vsock.h). Pure.
 */
#ifndef DEVICE_VSOCK_SPEC_H
#define DEVICE_VSOCK_SPEC_H

#include "base/keyval.h"

#define VSOCK_SPEC_ID_SIZE 32

/* For help texts. */
#define VSOCK_SPEC_SYNTAX "unix=PATH[,cid=N][,id=NAME]"

struct vsock_spec {
    char id[VSOCK_SPEC_ID_SIZE]; /* empty: none was given */
    uint64_t cid;                /* the guest's address */
    char path[KEYVAL_PATH_MAX];  /* of the host's socket */
};

/* The path is there, and short enough for every port's; -EINVAL and one line otherwise. Touches no file. */
int vsock_spec_parse(struct vsock_spec *spec, const char *text, struct err *err) MUST_CHECK;

#endif
