#include "image/job.h"

#include <errno.h>

int image_job_report(const struct image_job *job, uint64_t done, uint64_t total, struct err *err)
{
    if (!job)
        return 0;
    if (job->progress)
        job->progress(job->opaque, done, total);
    return job->stop && *job->stop ? err_set(err, -EINTR, "interrupted; nothing was left behind") : 0;
}

int image_job_report_to(const void *job, uint64_t done, uint64_t total, struct err *err)
{
    return image_job_report(job, done, total, err);
}
