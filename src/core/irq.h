/*
 * Interrupt wires and messages. A line is a level; whoever drives it says so on each change, and need not remember whether it
 * said so before. A message (MSI) is a write of `data` to an address in 0xfee00000-0xfeefffff (SDM Vol. 3A 11.11).
 *
 * Threads: any. Drivers may hold their own device's lock: sinks take only locks further on the way to the CPU
 * (device -> ioapic/pic -> lapic), and the last step, waking a vCPU, never waits.
 */
#ifndef CORE_IRQ_H
#define CORE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

struct irqchip; /* core/irqchip.h */

struct irq_line {
    void (*set)(void *opaque, unsigned n, bool level);
    void *opaque;
    unsigned n;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->n, level);
}

/* A rising edge, for edge-triggered inputs. */
static inline void irq_pulse(const struct irq_line *line)
{
    irq_set(line, true);
    irq_set(line, false);
}

struct msi_sink {
    void (*send)(void *opaque, uint64_t addr, uint32_t data);
    void *opaque;
    const struct irqchip *chip; /* of the engine, which has wires for messages; or NULL */
};

#endif
