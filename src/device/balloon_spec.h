/*
 * What --balloon takes: "on", or "target=SIZE[,stats=SECONDS]": a memory balloon (device/virtio_balloon.h). Pure.
 */
#ifndef DEVICE_BALLOON_SPEC_H
#define DEVICE_BALLOON_SPEC_H

#include "device/virtio_balloon.h"

#define BALLOON_SPEC_ID_SIZE 32

/* For help texts. */
#define BALLOON_SPEC_SYNTAX "on|target=SIZE[,stats=SECONDS][,id=NAME]"

/* id: "" where the specification says none. -EINVAL and one line. */
int balloon_spec_parse(const char *spec, struct virtio_balloon_conf *conf, char id[BALLOON_SPEC_ID_SIZE],
                       struct err *err) MUST_CHECK;

#endif
