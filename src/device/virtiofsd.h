/*
 * Debian's virtiofsd as a child process: the back end of a virtio file system (device/virtio_fs.h), shut into the directory it shares. It
 * puts itself into namespaces of its own. Where vireo does not run as root, it is root in a user namespace: the guest's root is then vireo's user,
 * and the guest's other users are that user's subordinate ids where /etc/subuid and /etc/subgid give it some.
 *
 * It ends when its connection is closed. Threads: one at a time.
 */
#ifndef DEVICE_VIRTIOFSD_H
#define DEVICE_VIRTIOFSD_H

#include <sys/types.h>

#include "base/err.h"

struct virtiofsd_conf {
    const char *program; /* NULL or empty: where Debian's packages have it */
    const char *source;  /* the directory */
    const char *cache;   /* how the guest may cache: "auto", "always" or "none" */
};

struct virtiofsd {
    pid_t pid; /* 0: reaped; of a process group of its own */
    int pid_fd;
    int socket; /* connected to it */
    int output; /* what it writes on standard output and error; not blocking */
};

/* Starts one. It may still fail: then the socket closes, and its output says why. -errno. */
int virtiofsd_open(struct virtiofsd *d, const struct virtiofsd_conf *conf, struct err *err) MUST_CHECK;

/* Ends it, and waits until it has gone; gives it a moment to do so by itself. */
void virtiofsd_close(struct virtiofsd *d);

/* Kills it; pid_fd tells when it has gone. */
void virtiofsd_kill(struct virtiofsd *d);

/* When it has gone, or is about to: how, such as "exit status 1", or "signal 9". Waits for it. */
void virtiofsd_reap(struct virtiofsd *d, char *how, size_t size);

/* The last line of what it has written since the last call; empty when it was silent. Drops the rest. */
void virtiofsd_last_words(struct virtiofsd *d, char *line, size_t size);

#endif
