/*
 * `vireo run --trace` and `--perf-map`: what an engine tells of its work (struct engine_trace), as lines of text and as perf's map.
 *
 * Threads: opened and closed while no vCPU runs; engines call from theirs.
 */
#ifndef CLI_TRACE_H
#define CLI_TRACE_H

#include <pthread.h>
#include <stdio.h>

#include "engine/engine.h"

#define TRACE_KINDS "blocks|exits|irq"

enum { TRACE_BLOCKS = 1 << 0, TRACE_EXITS = 1 << 1, TRACE_IRQ = 1 << 2 };

struct trace {
    struct engine_trace hooks; /* for the engine; its opaque is this */
    FILE *out;                 /* NULL: no text */
    FILE *map;                 /* NULL: no map */
    pthread_mutex_t lock;      /* guards what is written: a block's lines stay together */
};

/* The kinds in "exits,irq", or 0 when there is something else in it. */
unsigned trace_parse(const char *kinds);

/* kinds: TRACE_ bits; path: NULL for standard error. -errno and a message when a file cannot be opened. */
int trace_open(struct trace *trace, unsigned kinds, const char *path, bool perf_map, struct err *err) MUST_CHECK;

/* Also when nothing was opened, on zeroes. -errno when not all could be written. */
int trace_close(struct trace *trace) MUST_CHECK;

#endif
