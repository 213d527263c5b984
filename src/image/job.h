/*
 * Something long done to whole images: how far it is, and how it is told to stop. Whoever started it fills in what it wants to hear.
 */
#ifndef IMAGE_JOB_H
#define IMAGE_JOB_H

#include <signal.h>
#include <stdbool.h>

#include "base/err.h"

struct image_job {
    /* Often; bytes of the work, of which `total` may still change. May be NULL. */
    void (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
    /* Looked at often; when it is not 0 the job ends with -EINTR and leaves nothing behind. May be NULL. */
    const volatile sig_atomic_t *stop;
};

/* 0, or -EINTR and a message. job may be NULL. */
int image_job_report(const struct image_job *job, uint64_t done, uint64_t total, struct err *err) MUST_CHECK;
/* The same for disk_create_conf.report; job: a struct image_job. */
int image_job_report_to(const void *job, uint64_t done, uint64_t total, struct err *err) MUST_CHECK;

#endif
