/*
 * What --share takes: "DIR,tag=TAG[,readonly]..." for a directory that a virtiofsd is started for, or "socket=PATH,tag=TAG..." for a back end
 * that runs already (device/virtio_fs.h). A directory whose name begins with "socket=" is written ./socket=. Pure.
 */
#ifndef DEVICE_SHARE_SPEC_H
#define DEVICE_SHARE_SPEC_H

#include "device/virtio_fs.h"

#define SHARE_SPEC_ID_SIZE 32

/* For help texts. */
#define SHARE_SPEC_SYNTAX "DIR|socket=PATH,tag=TAG[,readonly][,cache=auto|always|none][,virtiofsd=PROGRAM][,id=NAME]"

/* id: "" where the specification says none. -EINVAL and one line. */
int share_spec_parse(const char *spec, struct virtio_fs_conf *conf, char id[SHARE_SPEC_ID_SIZE],
                     struct err *err) MUST_CHECK;

#endif
