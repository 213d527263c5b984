/*
 * What a command shows of something long: a bar with rate and time left on a terminal, on standard error; and how it is interrupted: the first
 * SIGINT, SIGTERM or SIGHUP ends the job in an orderly way, the next one ends the process.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "base/loop.h"
#include "image/job.h"

struct progress;

/* what: one word before the bar, kept by the caller. quiet: no bar, on a terminal either. Signals come by the loop, and with what is reported. */
int progress_open(struct progress **progress, const char *what, bool quiet, struct loop *loop,
                  struct err *err) MUST_CHECK;
/* Takes the bar away, and lets signals end the process again. NULL is fine. */
void progress_close(struct progress *progress);

/* For whoever does the work. */
const struct image_job *progress_job(const struct progress *progress);

#endif
