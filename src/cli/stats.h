/* What a VM did, as JSON: `vireo run --stats`. Its names are a product feature: they stay. */
#ifndef CLI_STATS_H
#define CLI_STATS_H

#include "vm/vm.h"

/* The figures of a VM that has ended and is still open, and the status vireo will exit with. NULL without memory; free() it. */
char *stats_json(struct vm *vm, int status);

#endif
