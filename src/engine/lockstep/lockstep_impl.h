/*
 * The lockstep engine's inside.
 *
 *   lockstep.c  engine_type: the two sides, steps, and when they are brought together
 *   record.c    the leader's and the follower's way to the machine: what is recorded, and how it is answered again
 *   compare.c   registers and RAM of the two sides
 *   report.c    the first difference as text
 *
 * Threads: all for the vCPU's own, but for what devices write to RAM (any).
 */
#ifndef ENGINE_LOCKSTEP_LOCKSTEP_IMPL_H
#define ENGINE_LOCKSTEP_LOCKSTEP_IMPL_H

#include <pthread.h>

#include "core/pvclock.h"
#include "engine/lockstep/lockstep.h"

struct engine {
    struct lockstep *conf;
    struct ram *ram; /* the machine's, and the leader's */
    struct ram copy; /* the follower's */
    struct engine *side[2];
};

enum { LEADER, FOLLOWER };

#define RECORD_KINDS(X)                 \
    X(PIO_READ, "a read from port")     \
    X(PIO_WRITE, "a write to port")     \
    X(MMIO_READ, "a read from")         \
    X(MMIO_WRITE, "a write to")         \
    X(MSR_READ, "a read of APIC MSR")   \
    X(MSR_WRITE, "a write of APIC MSR") \
    X(CR8_READ, "a read of CR8")        \
    X(CR8_WRITE, "a write of CR8")      \
    X(ACK, "an interrupt acknowledge")  \
    X(RANDOM, "a random number")        \
    X(RAM_WRITE, "a device's write to RAM at")

#define RECORD_ENUM(name, text) RECORD_##name,
enum record_kind { RECORD_KINDS(RECORD_ENUM) RECORD_N };
#undef RECORD_ENUM

/* Something between the leader and the machine, in the order in which it began. */
struct record_event {
    enum record_kind kind;
    unsigned len;  /* bytes of an access to a bus */
    int ret;       /* of an MSR access; the vector acknowledged */
    uint64_t addr; /* port, physical address, MSR; for RAM the offset into it */
    uint64_t val;  /* read or written; for RAM the index of its bytes */
    uint64_t size; /* bytes written to RAM */
};

struct record {
    pthread_mutex_t lock;
    struct record_event *events;
    size_t n, room, at; /* at: the next one to be replayed */
    uint8_t *bytes;     /* written to RAM */
    size_t n_bytes, bytes_room;
    bool on;              /* the leader is in step: record */
    bool failed;          /* out of memory: something is missing */
    char difference[256]; /* what the follower asked that the leader had not, or "" */
};

/* One of the two, and its way to the machine. */
struct side {
    struct engine_vcpu *vcpu; /* of lockstep, which it belongs to */
    const struct engine_type *type;
    struct engine_vcpu *inner;
    struct vcpu_port port;
    struct pvclock pvclock;
    struct pvclock_vcpu pvclock_vcpu;
    struct bus pio, mmio;
    struct engine_stats stats;
    struct x86_state st; /* behind the last step */
    enum engine_exit exit;
};

#define HISTORY 16

struct engine_vcpu {
    struct engine *engine;
    struct lockstep *lockstep; /* engine->conf */
    struct engine_vcpu_conf conf;
    struct side side[2];
    struct clock clock; /* of both sides; stands still during a step */
    struct record record;
    struct vtimer from;
    bool timer_set;
    _Atomic bool alone; /* the leader runs without the follower, to conf.from_ns */
    bool apart;         /* the follower's state and RAM are not the leader's: to be copied before a step */
    bool differed;
    struct x86_state before;   /* the step at hand began with this */
    uint64_t n;                /* and took so many instructions */
    uint64_t memory_due;       /* instructions in step at the next comparison of RAM */
    uint64_t history[HISTORY]; /* where the last blocks began */
    unsigned n_history;
};

/* ---- record.c ---- */

/* The side's buses and port. 0 or -ENOMEM. */
int record_join(struct side *side, struct err *err) MUST_CHECK;
void record_leave(struct side *side);

/* struct engine_vcpu_conf's `random`; opaque: the side. */
bool record_random(void *opaque, uint64_t *val, unsigned len);

/* Whether the leader's events are recorded. */
void record_switch(struct record *record, bool on);

/* Forgets all events. */
void record_clear(struct record *record);

/* The follower has done its step: applies what is left of writes to RAM, and notes in `difference` anything else that is left. */
void record_finish(struct engine_vcpu *vcpu);

/* struct ram's `written`; opaque: the struct engine_vcpu. */
void record_ram(void *opaque, const uint8_t *host, uint64_t len);

/* ---- compare.c ---- */

bool compare_same(const struct x86_state *a, const struct x86_state *b);

/* Calls fn for each register that differs, with both values as text. */
void compare_each(const struct x86_state *a, const struct x86_state *b,
                  void (*fn)(void *opaque, const char *name, const char *first, const char *second), void *opaque);

/* Makes `to` hold what `from` does. */
void compare_copy_ram(struct ram *to, const struct ram *from);

/* The offset of the first of 8 bytes that differ, or UINT64_MAX. */
uint64_t compare_ram(const struct ram *a, const struct ram *b);

/* ---- report.c ---- */

/* Into lockstep->report. `what`: one line on what differs. */
void report_difference(struct engine_vcpu *vcpu, const char *what);

#endif
