/* What a VM did, as JSON: `vireo run --stats` and the control socket's `stats`. Its names are a product feature: they stay. */
#ifndef CONTROL_STATS_H
#define CONTROL_STATS_H

#include <jansson.h>

#include "machine/machine.h"

/* The figures of a machine that has ended and is still open, or is paused. NULL without memory. */
json_t *stats_get(struct machine *m);

/* VM exits by reason as lines of text: how many, the time in them where it is measured, and of one. The caller's to free; NULL without memory. */
char *stats_exits_text(const json_t *stats);

/* The figures of one attachment: {"id": .., "kind": .., ...}. */
json_t *stats_attachment(struct attachment *a);

#endif
