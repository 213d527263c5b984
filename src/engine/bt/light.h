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

/*
 * An access whose check has failed, to the linear address light_arg. arg0: the struct light_access in generated code that says how to
 * go on.
 */
const uint8_t *light_access(struct bt *bt);

struct light_access {
    uint64_t rip; /* of the instruction */
    int16_t retry,
        resume; /* host code, from here: the check, and behind the instruction; resume is 0 where nothing is to come back */
    uint16_t group; /* 0, or bytes of the group of instructions that share the check */
    uint16_t what;  /* LIGHT_ bits */
};

enum {
    LIGHT_WRITE = 1 << 0,
    LIGHT_X87 = 1 << 1,         /* as bt->thunks.slow[1] */
    LIGHT_ENDS = 1 << 2,        /* the group ends the block */
    LIGHT_STORE = 1 << 3,       /* MOV of a general register to memory */
    LIGHT_STORE_SIZE_SHIFT = 4, /* log2 of its bytes, 2 bits */
    LIGHT_STORE_REG_SHIFT = 6,  /* 4 bits */
    LIGHT_STORE_LEN_SHIFT = 10, /* of the instruction, 4 bits */
};

/* RDTSC, and with light_arg 1 RDTSCP. Vectors are saved for it. */
const uint8_t *light_tsc(struct bt *bt);

#endif
