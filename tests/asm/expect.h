/*
 * What a test's source expects at its end: the `//=` lines, key=value pairs.
 *
 *   rax=5 rflags&0x8d5=0x44 cs=0x18 cr2=0x1000 efer=0x500 dr6=0xffff0ff1    registers, also under a mask
 *   mem32[0x500]=7                                                        memory (8, 16, 32, 64)
 *   n_exc=1 exc0=13:0x10 exc0.at=0 exc0.cr2=0 exc0.flags&0x10000=0        exceptions recorded (see common.inc)
 *   end=shutdown                                                          else halt
 *
 * and on how many vCPUs it runs, when that is not one: `//- cpus: N`.
 */
#ifndef TESTS_ASM_EXPECT_H
#define TESTS_ASM_EXPECT_H

#include "core/ram.h"
#include "engine/engine.h"

struct expect {
    char key[32];
    uint64_t mask, value, value2; /* value2: error code of excN=vector:error */
    bool has_value2;
};

struct expects {
    struct expect *list;
    size_t n;
    unsigned n_cpus;
    char cpu[32]; /* model, or "" */
    enum engine_exit end;
};

/* 0, or -errno and which line is wrong. */
int expect_read(struct expects *expects, const char *path, struct err *err);
void expect_free(struct expects *expects);

/* Number of expectations not met, each described on standard output as a TAP comment. */
unsigned expect_check(const struct expects *expects, const struct ram *ram, const struct x86_state *st,
                      enum engine_exit end);

#endif
