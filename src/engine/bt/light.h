/*
 * Light calls from generated code (light.c, tsc.c): what the thunks in bt->thunks call.
 *
 * Threads: the vCPU's own.
 */
#ifndef ENGINE_BT_LIGHT_H
#define ENGINE_BT_LIGHT_H

#include "engine/bt/bt.h"

/* Where generated code goes on. */
typedef const uint8_t *(*light_fn)(struct bt *bt);

const uint8_t *light_syscall(struct bt *bt);
const uint8_t *light_sysret(struct bt *bt);
const uint8_t *light_iret(struct bt *bt);
const uint8_t *light_string(struct bt *bt);

/* light_arg of light_string(). */
enum {
    LIGHT_SIZE = 3,      /* log2 of an element's bytes */
    LIGHT_MOVS = 1 << 2, /* else STOS */
    LIGHT_REP = 1 << 3,
};

/* RDTSC, and with light_arg 1 RDTSCP. Vectors are saved for it. */
const uint8_t *light_tsc(struct bt *bt);

#endif
