/*
 * What --share takes: "DIR,tag=TAG[,readonly]..." for a directory that a virtiofsd is started for, or "socket=PATH,tag=TAG..." for a back end
 * that runs already (device/virtio_fs.h). A directory whose name begins with "socket=" is written ./socket=. Pure.
 */
#ifndef DEVICE_SHARE_SPEC_H
#define DEVICE_SHARE_SPEC_H

#include "base/keyval.h"
#include "device/virtio_fs.h"

struct share_spec {
    char dir[KEYVAL_PATH_MAX]; /* empty: socket is not */
    char socket[KEYVAL_PATH_MAX];
    char tag[KEYVAL_TEXT_MAX];
    char id[KEYVAL_TEXT_MAX];        /* empty: none was given */
    char virtiofsd[KEYVAL_PATH_MAX]; /* the program; empty: Debian's */
    int cache;                       /* index into "auto", "always", "none" */
    bool readonly;
};

/* For help texts: the words that are accepted. */
#define SHARE_SPEC_FORMAT "DIR|socket=PATH,tag=TAG[,readonly][,cache=auto|always|none][,virtiofsd=PROGRAM][,id=NAME]"

/* -EINVAL and one line. */
int share_spec_parse(struct share_spec *spec, const char *text, struct err *err) MUST_CHECK;

/* The device's configuration; it points into the spec. */
void share_spec_conf(const struct share_spec *spec, struct virtio_fs_conf *conf);

#endif
