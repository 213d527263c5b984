/* What counts as a difference between two runs of one sequence. */
#ifndef TESTS_ORACLE_COMPARE_H
#define TESTS_ORACLE_COMPARE_H

#include "seq.h"

/* Number of differences between a run on the host and what an engine made of it; described on `out`, one a line, unless it is NULL. */
unsigned compare_results(const struct seq *seq, const struct seq_run *native, const struct seq_result *engine,
                         FILE *out);

#endif
