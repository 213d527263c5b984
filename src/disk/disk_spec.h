/*
 * What --disk says: "FILE,format=qcow2,readonly,iops=500" and so on. Pure.
 */
#ifndef DISK_DISK_SPEC_H
#define DISK_DISK_SPEC_H

#include "base/keyval.h"
#include "disk/disk.h"
#include "disk/disk_space.h"

#define DISK_SERIAL_MAX 20 /* virtio 1.2 section 5.2.6.1 */

/* What becomes of a request that the host cannot carry out. */
enum disk_on_error {
    DISK_ON_ERROR_REPORT, /* the guest sees an I/O error */
    DISK_ON_ERROR_PAUSE,  /* the VM pauses, and the request is tried again when it goes on */
    DISK_ON_ERROR_ENOSPC, /* that where the host has no room, otherwise an I/O error */
};

struct disk_spec {
    char path[KEYVAL_PATH_MAX];
    char format[KEYVAL_TEXT_MAX]; /* empty: as the path's ending says */
    char serial[KEYVAL_TEXT_MAX]; /* up to DISK_SERIAL_MAX characters; empty: none was given */
    char id[KEYVAL_TEXT_MAX];     /* the same */
    bool read_only;
    bool discard;
    struct keyval_list backing; /* backing files that the image may have, or directories of them */
    bool direct;
    bool threads;
    uint64_t iops, iops_burst, bps, bps_burst; /* a second; 0: no limit. Bursts: 0 is limiter.h's default */
    uint64_t queues;                           /* 0: as the machine sees fit */
    uint64_t timeout;                          /* seconds; 0: file_net.h's default */
    char space_warn[KEYVAL_TEXT_MAX];          /* as it stands there */
    struct disk_space_limit space;             /* what it says */
    int on_error;                              /* enum disk_on_error */
};

#define DISK_SPEC_SYNTAX                                                                                              \
    "FILE[,format=FORMAT][,readonly][,discard=on|off][,iops=N][,iops-burst=N][,bps=SIZE][,bps-burst=SIZE]"            \
    "[,serial=TEXT][,id=NAME][,queues=N][,direct][,threads][,backing=PATH]...[,timeout=SECONDS][,space-warn=SIZE|N%]" \
    "[,on-error=report|pause|enospc]"

/* -EINVAL and one line where it is malformed, or names no format. Touches no file. */
int disk_spec_parse(struct disk_spec *spec, const char *text, struct err *err) MUST_CHECK;

/* What the spec and the host's list permit: for the conf's `allow`. Looks at files. */
int disk_spec_allow(const struct disk_spec *spec, struct disk_allow **allow, struct err *err) MUST_CHECK;

/* What disk_open() takes; points into the spec. */
void disk_spec_conf(const struct disk_spec *spec, struct disk_conf *conf);

#endif
