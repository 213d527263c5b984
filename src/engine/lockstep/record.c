/* See lockstep_impl.h. An event is noted before the machine is asked, so that what a device writes to RAM on the way comes behind it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "engine/lockstep/lockstep_impl.h"

#define RECORD_TEXT(name, text) text,
static const char *const kind_names[RECORD_N] = {RECORD_KINDS(RECORD_TEXT)};
#undef RECORD_TEXT

static struct record *record_of(struct side *side)
{
    return &side->vcpu->record;
}

static bool leads(const struct side *side)
{
    return side == &side->vcpu->side[LEADER];
}

/* ---- recording ---- */

/* Room for one more; NULL when there is none. */
static struct record_event *add_locked(struct record *record, enum record_kind kind)
{
    if (record->n == record->room) {
        size_t room = record->room ? 2 * record->room : 256;
        struct record_event *events = realloc(record->events, room * sizeof(*events));
        if (!events) {
            record->failed = true;
            return NULL;
        }
        record->events = events;
        record->room = room;
    }
    record->events[record->n] = (struct record_event){.kind = kind};
    return &record->events[record->n++];
}

/* Its index; SIZE_MAX where it is not recorded. */
static size_t note(struct side *side, enum record_kind kind, uint64_t addr, unsigned len, uint64_t val)
{
    struct record *record = record_of(side);
    size_t at = SIZE_MAX;

    pthread_mutex_lock(&record->lock);
    struct record_event *event = record->on ? add_locked(record, kind) : NULL;
    if (event) {
        event->addr = addr;
        event->len = len;
        event->val = val;
        at = (size_t)(event - record->events);
    }
    pthread_mutex_unlock(&record->lock);
    return at;
}

static void note_result(struct side *side, size_t at, int ret, uint64_t val)
{
    struct record *record = record_of(side);

    pthread_mutex_lock(&record->lock);
    if (at != SIZE_MAX) {
        record->events[at].ret = ret;
        record->events[at].val = val;
    }
    pthread_mutex_unlock(&record->lock);
}

void record_ram(void *opaque, const uint8_t *host, uint64_t len)
{
    struct engine_vcpu *vcpu = opaque;
    struct record *record = &vcpu->record;

    pthread_mutex_lock(&record->lock);
    struct record_event *event = record->on && len ? add_locked(record, RECORD_RAM_WRITE) : NULL;
    if (event && len > record->bytes_room - record->n_bytes) {
        size_t room = 2 * (record->n_bytes + len);
        uint8_t *bytes = realloc(record->bytes, room);
        if (bytes) {
            record->bytes = bytes;
            record->bytes_room = room;
        } else {
            record->failed = true;
            record->n--;
            event = NULL;
        }
    }
    if (event) {
        event->addr = (uint64_t)(host - vcpu->engine->ram->base);
        event->val = record->n_bytes;
        event->size = len;
        memcpy(record->bytes + record->n_bytes, host, len);
        record->n_bytes += len;
    }
    pthread_mutex_unlock(&record->lock);
}

void record_switch(struct record *record, bool on)
{
    pthread_mutex_lock(&record->lock);
    record->on = on;
    pthread_mutex_unlock(&record->lock);
}

void record_clear(struct record *record)
{
    pthread_mutex_lock(&record->lock);
    record->n = record->at = record->n_bytes = 0;
    pthread_mutex_unlock(&record->lock);
}

/* ---- answering again ---- */

/* What devices have written by now. */
static void apply_ram_locked(struct engine_vcpu *vcpu)
{
    struct record *record = &vcpu->record;
    struct ram *ram = &vcpu->engine->copy;

    for (; record->at < record->n && record->events[record->at].kind == RECORD_RAM_WRITE; record->at++) {
        const struct record_event *event = &record->events[record->at];
        memcpy(ram->base + event->addr, record->bytes + event->val, event->size);
        ram_wrote(ram, ram->base + event->addr, event->size);
    }
}

static void describe(char *buf, size_t len, enum record_kind kind, uint64_t addr, unsigned bytes)
{
    if (kind == RECORD_ACK || kind == RECORD_CR8_READ || kind == RECORD_CR8_WRITE)
        snprintf(buf, len, "%s", kind_names[kind]);
    else if (bytes)
        snprintf(buf, len, "%s %#" PRIx64 " of %u bytes", kind_names[kind], addr, bytes);
    else
        snprintf(buf, len, "%s %#" PRIx64, kind_names[kind], addr);
}

static void differ(struct record *record, const struct record_event *event, enum record_kind kind, uint64_t addr,
                   unsigned len, uint64_t val)
{
    char asked[96], had[96] = "nothing more";

    if (*record->difference)
        return;
    describe(asked, sizeof(asked), kind, addr, len);
    if (event)
        describe(had, sizeof(had), event->kind, event->addr, event->len);
    if (event && event->kind == kind && event->addr == addr && event->len == len)
        snprintf(record->difference, sizeof(record->difference),
                 "%s: the leader wrote %#" PRIx64 ", the follower %#" PRIx64, asked, event->val, val);
    else
        snprintf(record->difference, sizeof(record->difference), "the leader asked for %s, the follower for %s", had,
                 asked);
}

/* The next event, if it is that; else notes a difference. val: what is written, which must be the same; NULL for reads. */
static bool take(struct side *side, enum record_kind kind, uint64_t addr, unsigned len, const uint64_t *val,
                 struct record_event *found)
{
    struct record *record = record_of(side);
    bool ok = false;

    pthread_mutex_lock(&record->lock);
    apply_ram_locked(side->vcpu);
    const struct record_event *event = record->at < record->n ? &record->events[record->at] : NULL;
    ok = event && event->kind == kind && event->addr == addr && event->len == len && (!val || event->val == *val);
    if (ok) {
        *found = *event;
        record->at++;
        apply_ram_locked(side->vcpu);
    } else {
        differ(record, event, kind, addr, len, val ? *val : 0);
    }
    pthread_mutex_unlock(&record->lock);
    return ok;
}

void record_finish(struct engine_vcpu *vcpu)
{
    struct record *record = &vcpu->record;

    pthread_mutex_lock(&record->lock);
    apply_ram_locked(vcpu);
    if (record->at < record->n && !*record->difference) {
        const struct record_event *event = &record->events[record->at];
        char had[96];
        describe(had, sizeof(had), event->kind, event->addr, event->len);
        snprintf(record->difference, sizeof(record->difference),
                 "the leader asked for %s, the follower for nothing more", had);
    }
    if (record->failed && !*record->difference)
        snprintf(record->difference, sizeof(record->difference), "out of memory for what is recorded");
    pthread_mutex_unlock(&record->lock);
}

/* ---- buses ---- */

static uint64_t bus_read(struct side *side, struct bus *bus, enum record_kind kind, uint64_t addr, unsigned len)
{
    struct record_event event;
    uint64_t val = 0;

    if (!leads(side))
        return take(side, kind, addr, len, NULL, &event) ? event.val : UINT64_MAX;
    size_t at = note(side, kind, addr, len, 0);
    bus_access(bus, addr, &val, len, false);
    note_result(side, at, 0, val);
    return val;
}

static void bus_write(struct side *side, struct bus *bus, enum record_kind kind, uint64_t addr, unsigned len,
                      uint64_t val)
{
    struct record_event event;

    if (leads(side)) {
        note(side, kind, addr, len, val);
        bus_access(bus, addr, &val, len, true);
    } else {
        (void)!take(side, kind, addr, len, &val, &event);
    }
}

static uint64_t pio_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct side *side = opaque;
    return bus_read(side, side->vcpu->conf.pio, RECORD_PIO_READ, off, len);
}

static void pio_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct side *side = opaque;
    bus_write(side, side->vcpu->conf.pio, RECORD_PIO_WRITE, off, len, val);
}

static uint64_t mmio_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct side *side = opaque;
    return bus_read(side, side->vcpu->conf.mmio, RECORD_MMIO_READ, off, len);
}

static void mmio_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct side *side = opaque;
    bus_write(side, side->vcpu->conf.mmio, RECORD_MMIO_WRITE, off, len, val);
}

/* ---- the port ---- */

/* One interrupt a step. While the leader runs alone, its pins follow the machine's. */
static int ack(void *apic)
{
    struct side *side = apic;
    struct vcpu_port *real = side->vcpu->conf.port;
    struct record_event event;

    atomic_fetch_and(&side->port.pending, ~(uint32_t)PIN_INTR);
    if (!leads(side))
        return take(side, RECORD_ACK, 0, 0, NULL, &event) ? event.ret : -1;
    size_t at = note(side, RECORD_ACK, 0, 0, 0);
    int vector = real->apic_ops->ack(real->apic);
    note_result(side, at, vector, 0);
    if (atomic_load(&side->vcpu->alone))
        atomic_fetch_or(&side->port.pending, atomic_load(&real->pending) & PIN_INTR);
    return vector;
}

static int msr_read(void *apic, uint32_t msr, uint64_t *val)
{
    struct side *side = apic;
    struct vcpu_port *real = side->vcpu->conf.port;
    struct record_event event = {.ret = -EPERM};

    if (!leads(side)) {
        (void)!take(side, RECORD_MSR_READ, msr, 0, NULL, &event);
        *val = event.val;
        return event.ret;
    }
    size_t at = note(side, RECORD_MSR_READ, msr, 0, 0);
    int ret = real->apic_ops->msr_read(real->apic, msr, val);
    note_result(side, at, ret, ret < 0 ? 0 : *val);
    return ret;
}

static int msr_write(void *apic, uint32_t msr, uint64_t val)
{
    struct side *side = apic;
    struct vcpu_port *real = side->vcpu->conf.port;
    struct record_event event = {.ret = -EPERM};

    if (!leads(side)) {
        (void)!take(side, RECORD_MSR_WRITE, msr, 0, &val, &event);
        return event.ret;
    }
    size_t at = note(side, RECORD_MSR_WRITE, msr, 0, val);
    int ret = real->apic_ops->msr_write(real->apic, msr, val);
    note_result(side, at, ret, val);
    return ret;
}

static uint8_t cr8_get(void *apic)
{
    struct side *side = apic;
    struct vcpu_port *real = side->vcpu->conf.port;
    struct record_event event = {0};

    if (!leads(side)) {
        (void)!take(side, RECORD_CR8_READ, 0, 0, NULL, &event);
        return (uint8_t)event.val;
    }
    size_t at = note(side, RECORD_CR8_READ, 0, 0, 0);
    uint8_t tpr = real->apic_ops->cr8_get(real->apic);
    note_result(side, at, 0, tpr);
    return tpr;
}

static void cr8_set(void *apic, uint8_t tpr)
{
    struct side *side = apic;
    struct vcpu_port *real = side->vcpu->conf.port;
    struct record_event event;
    uint64_t val = tpr;

    if (leads(side)) {
        note(side, RECORD_CR8_WRITE, 0, 0, val);
        real->apic_ops->cr8_set(real->apic, tpr);
    } else {
        (void)!take(side, RECORD_CR8_WRITE, 0, 0, &val, &event);
    }
}

static void tsc_moved(void *apic)
{
    struct side *side = apic;
    struct vcpu_port *real = side->vcpu->conf.port;

    if (!leads(side))
        return;
    atomic_store(&real->tsc_offset, atomic_load(&side->port.tsc_offset));
    if (real->apic_ops->tsc_moved)
        real->apic_ops->tsc_moved(real->apic);
}

static const struct vcpu_apic_ops apic_ops = {
    .ack = ack,
    .msr_read = msr_read,
    .msr_write = msr_write,
    .cr8_get = cr8_get,
    .cr8_set = cr8_set,
    .tsc_moved = tsc_moved,
};

bool record_random(void *opaque, uint64_t *val, unsigned len)
{
    struct side *side = opaque;
    struct record_event event = {0};

    if (!leads(side)) {
        (void)!take(side, RECORD_RANDOM, 0, len, NULL, &event);
        *val = event.val;
        return event.ret;
    }
    size_t at = note(side, RECORD_RANDOM, 0, len, 0);
    *val = 0;
    bool ok = getrandom(val, len, GRND_NONBLOCK) == len;
    note_result(side, at, ok, *val);
    return ok;
}

int record_join(struct side *side, struct err *err)
{
    const struct bus_region pio = {.size = 65536, .read = pio_read, .write = pio_write, .opaque = side};
    const struct bus_region mmio = {.size = UINT64_MAX, .read = mmio_read, .write = mmio_write, .opaque = side};

    bus_init(&side->pio, NULL);
    bus_init(&side->mmio, NULL);
    side->port.apic_ops = &apic_ops;
    side->port.apic = side;
    if (bus_add(&side->pio, &pio) < 0 || bus_add(&side->mmio, &mmio) < 0) {
        record_leave(side);
        return err_set(err, -ENOMEM, "lockstep: out of memory");
    }
    return 0;
}

void record_leave(struct side *side)
{
    bus_fini(&side->pio);
    bus_fini(&side->mmio);
}
