/*
 * A map of generated code for Linux's perf: /tmp/perf-PID.map, a line for each stretch of code with its address, length and name
 * (tools/perf/Documentation/jit-interface.txt in Linux's source). Blocks are named by the guest's address and privilege.
 *
 * Threads: any.
 */
#ifndef CLI_PERF_MAP_H
#define CLI_PERF_MAP_H

#include <stdio.h>

#include "engine/engine.h"

/* Makes this process's file, in the place of any left by another; NULL and a message when it cannot. It stays behind for perf report. */
FILE *perf_map_open(struct err *err);

void perf_map_code(FILE *map, const struct engine_code *code);

#endif
