/*
 * A vCPU in a box: RAM, empty buses and one vCPU of an engine, with no machine around it. What the tests of CPU behaviour run on.
 *
 * Threads: one, and a watchdog inside.
 */
#ifndef TESTS_BOX_BOX_H
#define TESTS_BOX_BOX_H

#include "core/pvclock.h"
#include <pthread.h>

#include "engine/engine.h"

struct box {
    const struct engine_type *type;
    struct ram ram;
    struct bus pio, mmio;
    struct loop *loop;
    struct clock clock;
    struct vcpu_port port;
    struct pvclock pvclock;
    struct pvclock_vcpu pvclock_vcpu;
    struct x86_cpuid cpuid;
    struct engine_stats stats;
    struct engine *engine;
    struct engine_vcpu *vcpu;
    uint64_t apic_base;
    uint8_t cr8;
    pthread_t watchdog;
    pthread_mutex_t lock; /* of what follows */
    int64_t deadline;     /* of the run, CLOCK_MONOTONIC in ns; 0: none */
    int64_t irq_period;   /* ns; 0: no interrupts */
    int64_t irq_next;     /* CLOCK_MONOTONIC */
    bool closing;
    pthread_cond_t changed;
};

/*
 * A dword written to this port asks for an interrupt every so many microseconds, 0 for no more. It is the only device, and has
 * nothing to be acknowledged.
 */
#define BOX_IRQ_PORT   0xe0
#define BOX_IRQ_VECTOR 0x20

/* engine: its name; ram_size in bytes. */
int box_open(struct box *box, const char *engine, uint64_t ram_size, struct err *err) MUST_CHECK;
int box_open_cpu(struct box *box, const char *engine, enum x86_cpu_model model, uint64_t ram_size,
                 struct err *err) MUST_CHECK;
void box_close(struct box *box);

/*
 * Runs the vCPU; KICKED when that takes longer than `ms`. limit: of instructions, or 0. Engines that must count run another way, so a
 * limit is for what cannot do without.
 */
enum engine_exit box_run(struct box *box, uint64_t limit, unsigned ms);

/* Copies into RAM; the range must lie inside. */
void box_poke(struct box *box, uint64_t gpa, const void *data, size_t len);

/* Maps a page in 4-level tables whose root is at `root`; tables come from *next_table, which moves on. flags: P, W, U, NX bits. */
void box_map(struct box *box, uint64_t root, uint64_t *next_table, uint64_t lin, uint64_t gpa, uint64_t flags);

#define BOX_PTE_P  UINT64_C(1)
#define BOX_PTE_W  UINT64_C(2)
#define BOX_PTE_U  UINT64_C(4)
#define BOX_PTE_NX (UINT64_C(1) << 63)

#endif
