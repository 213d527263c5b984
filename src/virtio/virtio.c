#include "virtio/virtio.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "virtio/virtq_impl.h"

#define QUEUE_SIZE_DEFAULT 256
#define RESERVED_FEATURES  (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)
/* A guest that breaks its device again and again does not fill the log. */
#define LOG_INTERVAL       NS_PER_SEC
#define LOG_MOST           8 /* lines of one device */

_Static_assert(VIRTIO_MAX_QUEUES <= 64, "`kicked` has a bit for each queue");

uint64_t virtio_offered(const struct virtio *v)
{
    return v->features | (RESERVED_FEATURES & ~v->without);
}

/* ---- start and stop, on the device's thread ---- */

static void reset_registers_locked(struct virtio *v)
{
    struct virtio_core *core = v->core;

    for (unsigned i = 0; i < v->n_queues; i++)
        virtq_reset(&core->queues[i], (uint16_t)v->queue_size);
    core->status = 0;
    core->driver_features = 0;
    v->driver_features = 0;
    atomic_store(&core->broken, false);
    atomic_store(&core->kicked, 0);
    core->written_from = core->written_end = 0;
}

static void carry_out_reset(struct virtio *v)
{
    struct virtio_core *core = v->core;

    if (v->type->reset)
        v->type->reset(v);
    virtio_lock(v);
    reset_registers_locked(v);
    core->transport->reset(v->dev);
    core->reset_wanted = false;
    pthread_cond_broadcast(&core->settled);
    virtio_unlock(v);
}

static void set_run(struct virtio_core *core, enum virtio_run run)
{
    pthread_mutex_lock(&core->lock);
    core->run = run;
    pthread_cond_broadcast(&core->settled);
    pthread_mutex_unlock(&core->lock);
}

static void stop_queues(struct virtio *v)
{
    for (unsigned i = 0; i < v->n_queues; i++)
        virtq_stop(&v->core->queues[i]);
}

/* core->run says VIRTIO_RUNNING already. */
static void start(struct virtio *v)
{
    struct virtio_core *core = v->core;
    uint64_t enabled = 0;

    virtio_lock(v);
    v->driver_features = core->driver_features;
    for (unsigned i = 0; i < v->n_queues; i++)
        enabled |= core->queues[i].regs.enabled ? UINT64_C(1) << i : 0;
    virtio_unlock(v);
    for (unsigned i = 0; i < v->n_queues; i++) {
        const char *reason;
        if (!(enabled >> i & 1) || virtq_start(&core->queues[i], &reason) == 0)
            continue;
        virtq_break(&core->queues[i], reason);
        stop_queues(v);
        set_run(core, VIRTIO_STOPPED);
        return;
    }
    v->type->start(v);
    atomic_fetch_or(&core->kicked, enabled);
}

enum step { STEP_NONE, STEP_START, STEP_STOP, STEP_RESET };

/* Who waits for the device to stand sees it run from the moment this says that it is to start. */
static enum step next_step(struct virtio_core *core)
{
    enum step next = STEP_NONE;

    pthread_mutex_lock(&core->lock);
    bool stand = core->reset_wanted || core->closing || core->pauses || !(core->status & VIRTIO_STATUS_DRIVER_OK) ||
                 !atomic_load(&core->master);
    if (core->run == VIRTIO_RUNNING && stand) {
        next = STEP_STOP;
        core->run = VIRTIO_STOPPING;
    } else if (core->run == VIRTIO_STOPPED && core->reset_wanted) {
        next = STEP_RESET;
    } else if (core->run == VIRTIO_STOPPED && !stand && !atomic_load(&core->broken)) {
        next = STEP_START;
        core->run = VIRTIO_RUNNING;
    }
    pthread_mutex_unlock(&core->lock);
    return next;
}

/* One step towards what is wanted; false when there is none to take now. */
static bool step(struct virtio *v)
{
    switch (next_step(v->core)) {
    case STEP_START:
        start(v);
        return true;
    case STEP_STOP:
        v->type->stop(v); /* which may end in virtio_stopped() */
        return true;
    case STEP_RESET:
        carry_out_reset(v);
        return true;
    default:
        return false;
    }
}

static void settle(struct virtio *v)
{
    if (v->core->settling) /* called back from within a step */
        return;
    v->core->settling = true;
    while (step(v))
        ;
    v->core->settling = false;
}

void virtio_stopped(struct virtio *v)
{
    if (v->core->run != VIRTIO_STOPPING)
        return;
    stop_queues(v);
    set_run(v->core, VIRTIO_STOPPED);
    if (!v->core->settling)
        loop_event_set(&v->core->work); /* not from under its caller, which may be deep in something */
}

static void on_work(void *opaque)
{
    struct virtio *v = opaque;
    struct virtio_core *core = v->core;

    virtio_config_tell(v);
    settle(v);
    if (core->run != VIRTIO_RUNNING) /* what was notified meanwhile is looked at after the start */
        return;
    uint64_t kicked = atomic_exchange(&core->kicked, 0);
    for (; kicked; kicked &= kicked - 1) {
        unsigned n = (unsigned)__builtin_ctzll(kicked);
        struct virtq *q = &core->queues[n];
        if (!q->started || core->run != VIRTIO_RUNNING)
            continue;
        q->budget = q->size;
        v->type->notify(v, n);
    }
}

bool virtio_queue_enabled(const struct virtio *v, unsigned n)
{
    return n < v->n_queues && v->core->queues[n].started;
}

bool virtio_running(const struct virtio *v)
{
    return v->core->run == VIRTIO_RUNNING && !atomic_load(&v->core->broken);
}

void virtio_break(struct virtio *v, const char *reason)
{
    struct virtio_core *core = v->core;
    int64_t now = loop_now();

    if (atomic_exchange(&core->broken, true))
        return;
    virtio_lock(v);
    core->status |= VIRTIO_STATUS_NEEDS_RESET;
    bool tell = core->status & VIRTIO_STATUS_DRIVER_OK;
    bool log = core->n_logged < LOG_MOST && (!core->n_logged || now - core->logged_ns > LOG_INTERVAL);
    if (log) {
        core->logged_ns = now;
        core->n_logged++;
    }
    virtio_unlock(v);
    if (log)
        log_warn("%s: %s: stopped until the guest resets it", v->name, reason);
    if (tell)
        core->transport->config_interrupt(v->dev);
}

/* ---- what vCPUs ask for ---- */

void virtio_kick(struct virtio *v, unsigned n)
{
    if (n >= v->n_queues)
        return;
    atomic_fetch_or(&v->core->kicked, UINT64_C(1) << n);
    loop_event_set(&v->core->work);
}

uint8_t virtio_get_status(struct virtio *v)
{
    virtio_lock(v);
    uint8_t status = v->core->status;
    virtio_unlock(v);
    return status;
}

/* 3.1.1 step 5: the device keeps FEATURES_OK clear where it cannot work with what the driver chose. */
static bool accepts_locked(const struct virtio *v)
{
    uint64_t f = v->core->driver_features;

    return !(f & ~virtio_offered(v)) && (f & VIRTIO_F_VERSION_1);
}

/* 2.1.1: the driver only ever sets bits. */
static void add_status_locked(struct virtio *v, uint8_t val)
{
    struct virtio_core *core = v->core;
    uint8_t fresh = (uint8_t)(val & ~core->status & ~VIRTIO_STATUS_NEEDS_RESET);

    if ((fresh & VIRTIO_STATUS_FEATURES_OK) && !accepts_locked(v))
        fresh &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    core->status |= fresh;
}

void virtio_set_status(struct virtio *v, uint8_t val)
{
    struct virtio_core *core = v->core;
    bool skipped = false;

    virtio_lock(v);
    if (core->reset_wanted || (!val && !core->status)) { /* under way, or as at power-on anyway */
        virtio_unlock(v);
        return;
    }
    if (val)
        add_status_locked(v, val);
    else
        core->reset_wanted = true;
    if ((core->status & VIRTIO_STATUS_DRIVER_OK) && !(core->status & VIRTIO_STATUS_FEATURES_OK)) {
        core->status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
        skipped = true;
    }
    virtio_unlock(v);
    if (skipped)
        virtio_break(v, "the driver is ready without having agreed on features");
    loop_event_set(&core->work);
}

/* After FEATURES_OK they stand (3.1.1). */
void virtio_set_driver_features(struct virtio *v, unsigned half, uint32_t val)
{
    struct virtio_core *core = v->core;

    virtio_lock(v);
    if (half < 2 && !(core->status & VIRTIO_STATUS_FEATURES_OK) && !core->reset_wanted)
        core->driver_features = (core->driver_features & ~(UINT64_C(0xffffffff) << (32 * half))) | (uint64_t)val
                                                                                                       << (32 * half);
    virtio_unlock(v);
}

uint32_t virtio_get_driver_features(struct virtio *v, unsigned half)
{
    virtio_lock(v);
    uint64_t features = half < 2 ? v->core->driver_features >> (32 * half) : 0;
    virtio_unlock(v);
    return (uint32_t)features;
}

bool virtio_configurable_locked(const struct virtio *v, unsigned n)
{
    const struct virtio_core *core = v->core;

    return n < v->n_queues && !core->reset_wanted && !(core->status & VIRTIO_STATUS_DRIVER_OK) &&
           !core->queues[n].regs.enabled;
}

void virtio_set_master(struct virtio *v, bool on)
{
    if (atomic_exchange(&v->core->master, on) != on)
        loop_event_set(&v->core->work);
}

/* ---- what the machine asks for ---- */

void virtio_reset(struct virtio *v)
{
    struct virtio_core *core = v->core;

    virtio_lock(v);
    core->reset_wanted = true;
    loop_event_set(&core->work);
    while (core->reset_wanted)
        pthread_cond_wait(&core->settled, &core->lock);
    virtio_unlock(v);
}

static void wait_stopped_locked(struct virtio_core *core)
{
    loop_event_set(&core->work);
    while (core->run != VIRTIO_STOPPED)
        pthread_cond_wait(&core->settled, &core->lock);
}

static void nothing(void *opaque)
{
}

void virtio_pause(struct virtio *v)
{
    virtio_lock(v);
    v->core->pauses++;
    wait_stopped_locked(v->core);
    virtio_unlock(v);
    iothread_call(v->io, nothing, NULL); /* nor is it in a callback that began before */
}

void virtio_resume(struct virtio *v)
{
    virtio_lock(v);
    v->core->pauses--;
    virtio_unlock(v);
    loop_event_set(&v->core->work);
}

/* ---- saved state ---- */

static void registers_state_locked(struct virtio *v, struct stream *s)
{
    struct virtio_core *core = v->core;
    bool broken = atomic_load(&core->broken);
    uint8_t config[VIRTIO_CONFIG_SIZE];
    uint32_t n_queues = v->n_queues;

    stream_u32(s, &n_queues);
    if (n_queues != v->n_queues)
        stream_refuse(s, -EPROTO, "it had %u queues, and has %u", n_queues, v->n_queues);

    memcpy(config, core->config, sizeof(config));
    stream_u8(s, &core->status);
    stream_u8(s, &core->generation);
    stream_u64(s, &core->driver_features);
    stream_bool(s, &broken);
    stream_bytes(s, config, sizeof(config));
    atomic_store(&core->broken, broken);
    if (s->loading && !s->error) { /* what the host says stays as this host says; what the guest wrote comes along */
        for (unsigned i = 0; i < VIRTIO_CONFIG_SIZE; i++)
            if (core->config_writable[i])
                core->config[i] = config[i];
        if (core->driver_features & ~virtio_offered(v))
            stream_refuse(s, -EPROTO, "it had features that it lacks: bits %#" PRIx64,
                          core->driver_features & ~virtio_offered(v));
    }
    v->driver_features = core->driver_features;
    for (unsigned i = 0; i < v->n_queues; i++)
        virtq_state(&core->queues[i], s, v->queue_size);
}

/* After a load that failed nothing holds. */
static void finish_load_locked(struct virtio *v, struct stream *s)
{
    if (s->error)
        reset_registers_locked(v);
    atomic_store(&v->core->kicked, 0); /* every queue is looked at after the start */
}

struct state_call {
    struct virtio *v;
    struct stream *s;
};

static void do_state(void *opaque)
{
    struct state_call *call = opaque;
    struct virtio *v = call->v;
    struct stream *s = call->s;

    stream_section(s, "virtio", 1);
    virtio_lock(v);
    registers_state_locked(v, s);
    virtio_unlock(v);
    if (v->type->state && !s->error) {
        int r = v->type->state(v, s);
        s->error = s->error ? s->error : r;
    }
    virtio_lock(v);
    if (s->loading)
        finish_load_locked(v, s);
    virtio_unlock(v);
}

int virtio_state(struct virtio *v, struct stream *s)
{
    struct state_call call = {v, s};

    virtio_pause(v);
    iothread_call(v->io, do_state, &call);
    virtio_resume(v);
    return s->error;
}

/* ---- open and close ---- */

static int open_queues(struct virtio *v, struct err *err)
{
    struct virtio_core *core = v->core;

    if (!v->queue_size)
        v->queue_size = QUEUE_SIZE_DEFAULT;
    core->queues = calloc(v->n_queues, sizeof(*core->queues));
    v->queues = calloc(v->n_queues, sizeof(struct virtq *)); // NOLINT(bugprone-sizeof-expression): pointers they are
    if (!core->queues || !v->queues)
        return err_set(err, -ENOMEM, "%s: out of memory", v->name);
    for (unsigned i = 0; i < v->n_queues; i++) {
        core->queues[i].v = v;
        core->queues[i].n = i;
        v->queues[i] = &core->queues[i];
    }
    reset_registers_locked(v);
    return 0;
}

static void free_all(struct virtio *v)
{
    struct virtio_core *core = v->core;

    if (core) {
        for (unsigned i = 0; core->queues && i < v->n_queues; i++)
            virtq_fini(&core->queues[i]);
        pthread_cond_destroy(&core->settled);
        pthread_mutex_destroy(&core->lock);
        free(core->queues);
        free(core);
    }
    free(v->queues);
    free(v);
}

int virtio_open(struct virtio **out, const struct virtio_type *type, const void *conf, struct device *dev,
                const struct virtio_transport *transport, struct iothread *io, const char *name, struct err *err)
{
    struct virtio *v = calloc(1, type->size);
    struct virtio_core *core = calloc(1, sizeof(*core));
    int r;

    *out = NULL;
    if (!v || !core) {
        free(core);
        free(v);
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    }
    v->type = type;
    v->dev = dev;
    v->env = dev->env;
    v->io = io;
    v->core = core;
    snprintf(v->name, sizeof(v->name), "%s", name);
    core->v = v;
    core->transport = transport;
    pthread_mutex_init(&core->lock, NULL);
    pthread_cond_init(&core->settled, NULL);
    r = type->open(v, conf, err);
    if (r < 0)
        goto fail;
    r = open_queues(v, err);
    if (r < 0) {
        if (type->close)
            type->close(v);
        goto fail;
    }
    loop_event_init(&core->work, io->loop, on_work, v);
    *out = v;
    return 0;

fail:
    free_all(v);
    return r;
}

static void fini_work(void *opaque)
{
    loop_event_fini(&((struct virtio *)opaque)->core->work);
}

void virtio_close(struct virtio *v)
{
    if (!v)
        return;
    virtio_lock(v);
    v->core->closing = true;
    wait_stopped_locked(v->core);
    virtio_unlock(v);
    iothread_call(v->io, fini_work, v);
    if (v->type->close)
        v->type->close(v);
    free_all(v);
}
