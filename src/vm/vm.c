#include "vm/vm.h"

#include <errno.h>

#include "base/log.h"

/* 1 GHz: VM time in nanoseconds as it stands. An engine whose guests read the host's counter has a rate of its own. */
#define TSC_HZ UINT64_C(1000000000)

static void on_power_request(void *opaque, enum power_request what, int status)
{
    struct vm *vm = opaque;

    switch (what) {
    case POWER_OFF:
        vm_end(vm, VM_END_OFF, 0);
        break;
    case POWER_RESET:
        vm_reset(vm);
        break;
    case POWER_EXIT:
        vm_end(vm, VM_END_DEBUG, status);
        break;
    }
}

static void on_timeout(void *opaque)
{
    vm_end(opaque, VM_END_TIMEOUT, 0);
}

/* What an engine refuses is asked for rightly: it is the host that cannot do it, be it for want of rights, of a device or of a feature. */
static int host_cannot(int r)
{
    return r == -ENOMEM ? r : -EAGAIN;
}

int vm_open(struct vm *vm, const struct vm_conf *conf, struct err *err)
{
    int r;

    *vm = (struct vm){.conf = *conf, .pauses = 1};
    if (conf->n_vcpus < 1 || conf->n_vcpus > VM_MAX_VCPUS)
        return err_set(err, -EINVAL, "%u vCPUs: must be 1 to %d", conf->n_vcpus, VM_MAX_VCPUS);
    r = loop_open(&vm->loop, err);
    if (r < 0)
        return r;
    clock_init(&vm->clock, vm->loop, TSC_HZ);
    pvclock_init(&vm->pvclock, &vm->ram, &vm->clock);
    bus_init(&vm->pio, NULL);
    bus_init(&vm->mmio, NULL);
    pthread_mutex_init(&vm->lock, NULL);
    loop_timer_init(&vm->timeout, vm->loop, on_timeout, vm);
    vm->env = (struct device_env){
        .loop = vm->loop,
        .clock = &vm->clock,
        .ram = &vm->ram,
        .pio = &vm->pio,
        .mmio = &vm->mmio,
        .power = {.request = on_power_request, .opaque = vm},
    };
    const struct engine_conf engine_conf = {.ram = &vm->ram,
                                            .n_vcpus = conf->n_vcpus,
                                            .code_cache = conf->code_cache,
                                            .profile = conf->profile,
                                            .tsc_hz = conf->tsc_hz,
                                            .lockstep = conf->lockstep,
                                            .irqchip = conf->irqchip,
                                            .trace = conf->trace};
    r = ram_open(&vm->ram, conf->ram_size, conf->ram_low_max, err);
    if (r < 0)
        goto fail;
    if (!conf->engine->irqchip && conf->irqchip > ENGINE_IRQCHIP_AUTO) {
        r = err_set(err, -EINVAL, "engine '%s' has no interrupt controllers of its own: --irqchip must be user",
                    conf->engine->name);
        goto fail;
    }
    r = conf->engine->open(&vm->engine, &engine_conf, err);
    if (r < 0) {
        r = host_cannot(r);
        goto fail;
    }
    if (conf->tsc_hz)
        vm->clock.tsc_hz = conf->tsc_hz;
    else if (conf->engine->tsc_hz)
        vm->clock.tsc_hz = conf->engine->tsc_hz(vm->engine);
    if (conf->engine->irqchip)
        vm->env.irqchip = conf->engine->irqchip(vm->engine);
    if (conf->engine->doorbells)
        vm->env.doorbells = conf->engine->doorbells(vm->engine);
    for (unsigned i = 0; i < conf->n_vcpus; i++) {
        r = vcpu_open(&vm->vcpus[i], vm, i, err);
        if (r < 0) {
            r = host_cannot(r);
            goto fail;
        }
    }
    return 0;

fail:
    vm_close(vm);
    return r;
}

/* Also after a vm_open() that came half way. */
void vm_close(struct vm *vm)
{
    for (unsigned i = 0; i < VM_MAX_VCPUS; i++)
        if (vm->vcpus[i])
            vcpu_quit(vm->vcpus[i]);

    /* In reverse order of opening: later devices lean on earlier ones. */
    while (vm->devices) {
        struct device **last = &vm->devices;
        while ((*last)->next)
            last = &(*last)->next;
        device_close(*last);
        *last = NULL;
    }
    for (unsigned i = 0; i < VM_MAX_VCPUS; i++)
        vcpu_close(vm->vcpus[i]);
    if (vm->engine)
        vm->conf.engine->close(vm->engine);
    ram_close(&vm->ram);
    pthread_mutex_destroy(&vm->lock);
    bus_fini(&vm->mmio);
    bus_fini(&vm->pio);
    pvclock_fini(&vm->pvclock);
    clock_fini(&vm->clock);
    loop_close(vm->loop);
    vm->loop = NULL;
}

int vm_add_device(struct vm *vm, const struct device_type *type, const void *conf, struct device **out, struct err *err)
{
    struct device *dev;
    int r = device_open(&dev, type, &vm->env, conf, err);

    if (r < 0)
        return r;
    struct device **last = &vm->devices;
    while (*last)
        last = &(*last)->next;
    *last = dev;
    if (out)
        *out = dev;
    return 0;
}

void vm_remove_device(struct vm *vm, struct device *dev)
{
    struct device **at = &vm->devices;

    while (*at != dev)
        at = &(*at)->next;
    *at = dev->next;
    device_close(dev);
}

bool vm_is_running(const struct vm *vm)
{
    return vm->started_ns && !vm->ended_ns;
}

static void hold_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->conf.n_vcpus; i++)
        vcpu_hold(vm->vcpus[i]);
}

void vm_pause(struct vm *vm)
{
    if (vm->pauses++)
        return;
    hold_all(vm);
    for (unsigned i = 0; i < vm->conf.n_vcpus; i++)
        vcpu_pause(vm->vcpus[i]);
    clock_stop(&vm->clock);
}

void vm_resume(struct vm *vm)
{
    if (--vm->pauses)
        return;
    clock_start(&vm->clock);
    for (unsigned i = 0; i < vm->conf.n_vcpus; i++)
        if (!vm->vcpus[i]->frozen)
            vcpu_resume(vm->vcpus[i]);
}

static void tell_debugger(void *opaque)
{
    struct vm *vm = opaque;

    vm->debugger.stopped(vm->debugger.opaque);
}

void vm_debug_stop(struct vm *vm)
{
    hold_all(vm);
    if (loop_post(vm->loop, tell_debugger, vm) < 0)
        vm_end(vm, VM_END_FAIL, 0);
}

void vm_end(struct vm *vm, enum vm_end how, int status)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->end == VM_RUNNING) {
        vm->end = how;
        vm->end_status = status;
    }
    pthread_mutex_unlock(&vm->lock);
    hold_all(vm);
    loop_stop(vm->loop);
}

void vm_crash(struct vm *vm, struct vcpu *vcpu)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->end == VM_RUNNING && !vm->crashed) {
        vm->crashed = vcpu;
        vcpu_get_state(vcpu, &vm->crash_state);
    }
    pthread_mutex_unlock(&vm->lock);
    vm_end(vm, VM_END_CRASH, 0);
}

/* Every CPU and device as at power-on; RAM keeps what is in it, as on a board, but for what boot() loads. */
static int reset_all(struct vm *vm, struct err *err)
{
    for (struct device *dev = vm->devices; dev; dev = dev->next)
        device_reset(dev);
    for (unsigned i = 0; i < vm->conf.n_vcpus; i++) {
        struct x86_state st;
        x86_state_reset(&st, i == 0);
        vcpu_port_lower(&vm->vcpus[i]->port, PIN_NMI | PIN_INIT | PIN_SIPI);
        atomic_store(&vm->vcpus[i]->port.tsc_offset, 0);
        vcpu_set_state(vm->vcpus[i], &st);
    }
    return vm->boot(vm, err);
}

static void do_reset(void *opaque)
{
    struct vm *vm = opaque;
    struct err err;

    pthread_mutex_lock(&vm->lock);
    bool wanted = vm->reset_wanted;
    pthread_mutex_unlock(&vm->lock);
    if (!wanted) /* vm_settle() came first */
        return;
    vm_pause(vm);
    pthread_mutex_lock(&vm->lock);
    vm->reset_wanted = false;
    bool ending = vm->end != VM_RUNNING;
    pthread_mutex_unlock(&vm->lock);
    if (ending)
        return;
    if (reset_all(vm, &err) < 0) {
        log_error("reset: %s", err.msg);
        vm_end(vm, VM_END_FAIL, 0);
        return;
    }
    vm_resume(vm);
}

void vm_reset(struct vm *vm)
{
    if (vm->conf.no_reboot) {
        vm_end(vm, VM_END_RESET, 0);
        return;
    }
    pthread_mutex_lock(&vm->lock);
    bool first = !vm->reset_wanted;
    vm->reset_wanted = true;
    pthread_mutex_unlock(&vm->lock);
    if (!first)
        return;
    hold_all(vm); /* not an instruction more than need be */
    if (loop_post(vm->loop, do_reset, vm) < 0)
        vm_end(vm, VM_END_FAIL, 0);
}

void vm_settle(struct vm *vm)
{
    do_reset(vm);
}

int vm_run(struct vm *vm, struct err *err)
{
    int r = vm->loaded ? 0 : reset_all(vm, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < vm->conf.n_vcpus; i++) {
        r = vcpu_start(vm->vcpus[i], err);
        if (r < 0)
            return r;
    }
    vm->started_ns = loop_now();
    if (vm->conf.timeout_ns)
        loop_timer_set(&vm->timeout, vm->started_ns + vm->conf.timeout_ns);
    vm_resume(vm);
    loop_run(vm->loop);
    vm_pause(vm);
    vm->ended_ns = loop_now();
    loop_timer_cancel(&vm->timeout);
    for (unsigned i = 0; i < vm->conf.n_vcpus; i++)
        vcpu_quit(vm->vcpus[i]);
    return 0;
}
