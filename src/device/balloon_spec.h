/*
 * What --balloon takes: "on", or "target=SIZE[,stats=SECONDS]": a memory balloon (device/virtio_balloon.h). Pure.
 */
#ifndef DEVICE_BALLOON_SPEC_H
#define DEVICE_BALLOON_SPEC_H

#include "base/keyval.h"
#include "device/virtio_balloon.h"

struct balloon_spec {
    bool on; /* says nothing more than that there is one */
    uint64_t target, stats;
    char id[KEYVAL_TEXT_MAX]; /* empty: none was given */
};

/* For help texts: the words that are accepted. */
#define BALLOON_SPEC_FORMAT "on|target=SIZE[,stats=SECONDS][,id=NAME]"

/* -EINVAL and one line. */
int balloon_spec_parse(struct balloon_spec *spec, const char *text, struct err *err) MUST_CHECK;

void balloon_spec_conf(const struct balloon_spec *spec, struct virtio_balloon_conf *conf);

#endif
