#include "box.h"

#include <errno.h>
#include <time.h>

#include "base/log.h"

#define BOX_TSC_HZ     UINT64_C(1000000000)
#define BOX_CRYSTAL_HZ UINT64_C(25000000)

/* No local APIC, but for what the timer raises: its MSRs are not there, except the base, which stays what it is at reset. */
static int apic_ack(void *apic)
{
    struct box *box = apic;
    vcpu_port_lower(&box->port, PIN_INTR);
    return BOX_IRQ_VECTOR;
}

static int apic_msr_read(void *apic, uint32_t msr, uint64_t *val)
{
    struct box *box = apic;
    *val = box->apic_base;
    return msr == 0x1b ? 0 : -EPERM;
}

static int apic_msr_write(void *apic, uint32_t msr, uint64_t val)
{
    struct box *box = apic;
    return msr == 0x1b && val == box->apic_base ? 0 : -EPERM;
}

static uint8_t apic_cr8_get(void *apic)
{
    struct box *box = apic;
    return box->cr8;
}

static void apic_cr8_set(void *apic, uint8_t tpr)
{
    struct box *box = apic;
    box->cr8 = tpr;
}

static const struct vcpu_apic_ops apic_ops = {
    .ack = apic_ack,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .cr8_get = apic_cr8_get,
    .cr8_set = apic_cr8_set,
};

/* ---- the watchdog, which is the timer too ---- */

#define LOOK_NS 5000000

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* When to look again: the lock is held. */
static int64_t look(struct box *box)
{
    int64_t now = now_ns(), next = now + LOOK_NS;

    if (box->deadline && now > box->deadline)
        vcpu_port_raise(&box->port, PIN_KICK);
    if (!box->irq_period)
        return next;
    if (now >= box->irq_next) {
        vcpu_port_raise(&box->port, PIN_INTR);
        box->irq_next = now + box->irq_period;
    }
    return box->irq_next < next ? box->irq_next : next;
}

static void *watch(void *opaque)
{
    struct box *box = opaque;

    pthread_mutex_lock(&box->lock);
    while (!box->closing) {
        int64_t next = look(box);
        const struct timespec ts = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
        pthread_cond_clockwait(&box->changed, &box->lock, CLOCK_MONOTONIC, &ts);
    }
    pthread_mutex_unlock(&box->lock);
    return NULL;
}

static uint64_t irq_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return UINT64_MAX;
}

static void irq_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct box *box = opaque;

    pthread_mutex_lock(&box->lock);
    box->irq_period = (int64_t)(uint32_t)val * 1000;
    box->irq_next = now_ns() + box->irq_period;
    if (!box->irq_period)
        vcpu_port_lower(&box->port, PIN_INTR);
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->lock);
}

static void kick(void *opaque)
{
    struct box *box = opaque;
    box->type->kick(box->vcpu);
}

/* With it goes a pin that it has raised too late. */
static void set_deadline(struct box *box, int64_t deadline)
{
    pthread_mutex_lock(&box->lock);
    vcpu_port_lower(&box->port, PIN_KICK);
    box->deadline = deadline;
    pthread_mutex_unlock(&box->lock);
}

enum engine_exit box_run(struct box *box, uint64_t limit, unsigned ms)
{
    set_deadline(box, now_ns() + (int64_t)ms * 1000000);
    enum engine_exit exit = box->type->run(box->vcpu, limit);
    set_deadline(box, 0);
    return exit;
}

static int start_watchdog(struct box *box, struct err *err)
{
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->changed, NULL);
    box->port.kick = kick;
    box->port.vcpu = box;
    int r = pthread_create(&box->watchdog, NULL, watch, box);
    if (!r)
        return 0;
    pthread_cond_destroy(&box->changed);
    pthread_mutex_destroy(&box->lock);
    return err_set(err, -r, "no thread for a watchdog");
}

static void stop_watchdog(struct box *box)
{
    pthread_mutex_lock(&box->lock);
    box->closing = true;
    pthread_cond_signal(&box->changed);
    pthread_mutex_unlock(&box->lock);
    pthread_join(box->watchdog, NULL);
    pthread_cond_destroy(&box->changed);
    pthread_mutex_destroy(&box->lock);
}

int box_open(struct box *box, const char *engine, uint64_t ram_size, struct err *err)
{
    return box_open_cpu(box, engine, X86_CPU_HOST, ram_size, err);
}

int box_open_cpu(struct box *box, const char *engine, enum x86_cpu_model model, uint64_t ram_size, struct err *err)
{
    *box = (struct box){.apic_base = 0xfee00900};
    box->type = engine_find(engine, err);
    if (!box->type)
        return -ENOENT;
    int r = ram_open(&box->ram, ram_size, 2 * GIB, err);
    if (r)
        return r;
    bus_init(&box->pio, NULL);
    bus_init(&box->mmio, NULL);
    const struct bus_region irq = {
        .base = BOX_IRQ_PORT, .size = 4, .write = irq_write, .read = irq_read, .opaque = box};
    r = bus_add(&box->pio, &irq);
    if (r)
        goto no_loop;
    r = loop_open(&box->loop, err);
    if (r)
        goto no_loop;
    clock_init(&box->clock, box->loop, BOX_TSC_HZ);
    clock_start(&box->clock);
    pvclock_init(&box->pvclock, &box->ram, &box->clock);
    pvclock_join(&box->pvclock, &box->pvclock_vcpu, &box->port);
    box->port.apic_ops = &apic_ops;
    box->port.apic = box;
    const struct x86_cpuid_conf cpuid = {
        .model = model, .n_cpus = 1, .tsc_hz = BOX_TSC_HZ, .crystal_hz = BOX_CRYSTAL_HZ, .phys_bits = 40};
    x86_cpuid_init(&box->cpuid, &cpuid);
    r = box->type->open(&box->engine, &(struct engine_conf){.ram = &box->ram, .n_vcpus = 1}, err);
    if (r)
        goto no_engine;
    const struct engine_vcpu_conf conf = {.ram = &box->ram,
                                          .pio = &box->pio,
                                          .mmio = &box->mmio,
                                          .port = &box->port,
                                          .clock = &box->clock,
                                          .cpuid = &box->cpuid,
                                          .stats = &box->stats};
    r = box->type->vcpu_open(box->engine, &conf, &box->vcpu, err);
    if (r)
        goto no_vcpu;
    r = start_watchdog(box, err);
    if (r)
        goto no_watchdog;
    return 0;

no_watchdog:
    box->type->vcpu_close(box->vcpu);
no_vcpu:
    box->type->close(box->engine);
no_engine:
    pvclock_fini(&box->pvclock);
    clock_fini(&box->clock);
    loop_close(box->loop);
no_loop:
    bus_fini(&box->mmio);
    bus_fini(&box->pio);
    ram_close(&box->ram);
    return r;
}

void box_close(struct box *box)
{
    stop_watchdog(box);
    box->type->vcpu_close(box->vcpu);
    box->type->close(box->engine);
    pvclock_fini(&box->pvclock);
    clock_fini(&box->clock);
    loop_close(box->loop);
    bus_fini(&box->mmio);
    bus_fini(&box->pio);
    ram_close(&box->ram);
}

void box_poke(struct box *box, uint64_t gpa, const void *data, size_t len)
{
    int r = ram_write(&box->ram, gpa, data, len);
    if (r)
        log_error("box: %zu bytes at %#lx are not RAM", len, (unsigned long)gpa);
}

void box_map(struct box *box, uint64_t root, uint64_t *next_table, uint64_t lin, uint64_t gpa, uint64_t flags)
{
    uint64_t table = root;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint8_t *entry = ram_host(&box->ram, table + 8 * (lin >> shift & 511), 8);
        uint64_t pte = load_le64(entry);
        if (!(pte & BOX_PTE_P)) {
            pte = *next_table | BOX_PTE_P | BOX_PTE_W | BOX_PTE_U;
            *next_table += RAM_PAGE_SIZE;
            store_le64(entry, pte);
        }
        table = pte & UINT64_C(0xffffffffff000);
    }
    store_le64(ram_host(&box->ram, table + 8 * (lin >> 12 & 511), 8), gpa | flags);
}
