/*
 * The engines there are, whether this host can run them and how fast: for `vireo engines`.
 *
 * Threads: any.
 */
#ifndef ENGINE_SURVEY_H
#define ENGINE_SURVEY_H

#include "engine/engine.h"

struct survey {
    const char *name;
    const char *kind;  /* in the field's term */
    bool usable;       /* --engine NAME runs here */
    bool preferred;    /* the one that "auto" takes */
    uint64_t rate;     /* guest instructions a second of CPU time, of a loop in ring 0; 0 where none ran */
    struct err reason; /* where not usable */
};

/* Those of engines.def in its order, at most `max`; returns how many. Measures each, for up to 0.1 s. */
size_t survey_engines(struct survey *found, size_t max);

#endif
