/*
 * The VM with an engine whose "guest" is a C function a vCPU: it can do what a guest can (touch ports, halt, shut down), and the test
 * sees what the VM makes of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "../unit.h"
#include "vm/vm.h"

typedef enum engine_exit (*guest_fn)(struct engine_vcpu *vcpu);

struct engine_vcpu {
    struct engine_vcpu_conf conf;
    struct x86_state st;
    guest_fn guest;
    struct engine_debug *debug;
    int runs; /* times run() was called since the last set() */
};

static guest_fn guests[VM_MAX_VCPUS]; /* what the next vCPUs opened will run */
static _Atomic int boots, lapic_inits, nmis;

static int fake_probe(uint64_t *rate, struct err *err)
{
    return 0;
}

static int fake_open(struct engine **engine, const struct engine_conf *conf, struct err *err)
{
    *engine = NULL;
    return 0;
}

static void fake_close(struct engine *engine)
{
}

static int fake_vcpu_open(struct engine *engine, const struct engine_vcpu_conf *conf, struct engine_vcpu **vcpu,
                          struct err *err)
{
    *vcpu = calloc(1, sizeof(**vcpu));
    (*vcpu)->conf = *conf;
    (*vcpu)->guest = guests[conf->index];
    return 0;
}

static void fake_vcpu_close(struct engine_vcpu *vcpu)
{
    free(vcpu);
}

static enum engine_exit fake_run(struct engine_vcpu *vcpu, uint64_t limit)
{
    vcpu->runs++;
    return vcpu->guest(vcpu);
}

static void fake_kick(struct engine_vcpu *vcpu)
{
}

static void fake_get(struct engine_vcpu *vcpu, struct x86_state *st)
{
    *st = vcpu->st;
}

static void fake_set(struct engine_vcpu *vcpu, const struct x86_state *st)
{
    vcpu->st = *st;
    vcpu->runs = 0;
}

static void fake_debug(struct engine_vcpu *vcpu, struct engine_debug *debug)
{
    vcpu->debug = debug;
}

static const struct engine_type fake_engine = {
    .name = "fake",
    .probe = fake_probe,
    .open = fake_open,
    .close = fake_close,
    .vcpu_open = fake_vcpu_open,
    .vcpu_close = fake_vcpu_close,
    .run = fake_run,
    .kick = fake_kick,
    .get = fake_get,
    .set = fake_set,
    .debug = fake_debug,
};

/* Runs until the VM wants the thread, as an engine does. */
static enum engine_exit spin(struct engine_vcpu *vcpu)
{
    while (!(atomic_load(&vcpu->conf.port->pending) & (PIN_KICK | PIN_INIT | PIN_SIPI)))
        ;
    return ENGINE_KICKED;
}

/* ---- a device with a power port: 0 off, 1 reset, 2 exit with 42 ---- */

static int power_open(struct device *dev, const void *conf, struct err *err)
{
    return device_map(dev, dev->env->pio, 0, 0x10, 1, err);
}

static uint64_t power_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    return 0;
}

static void power_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    power_request(&dev->env->power, (enum power_request)val, 42);
}

static const struct device_type power_type = {
    .name = "power", .size = sizeof(struct device), .open = power_open, .read = power_read, .write = power_write};

static void out(struct engine_vcpu *vcpu, uint8_t val)
{
    bus_access(vcpu->conf.pio, 0x10, &val, 1, true);
}

static int boot(struct vm *vm, struct err *err)
{
    boots++;
    return 0;
}

static void run_vm(struct vm *vm, unsigned n, bool no_reboot, int64_t timeout_ns)
{
    const struct vm_conf conf = {.engine = &fake_engine,
                                 .ram_size = MIB,
                                 .ram_low_max = 2 * GIB,
                                 .n_vcpus = n,
                                 .no_reboot = no_reboot,
                                 .timeout_ns = timeout_ns,
                                 .crystal_hz = 1000000000};
    struct err err;

    boots = 0;
    assert_int_equal(vm_open(vm, &conf, &err), 0);
    vm->boot = boot;
    assert_int_equal(vm_add_device(vm, &power_type, NULL, NULL, &err), 0);
    assert_int_equal(vm_run(vm, &err), 0);
}

static enum engine_exit guest_off(struct engine_vcpu *vcpu)
{
    out(vcpu, POWER_OFF);
    return spin(vcpu);
}

static void test_power_off(void **state)
{
    struct vm vm;

    guests[0] = guest_off;
    guests[1] = spin;
    run_vm(&vm, 2, false, 0);
    assert_int_equal(vm.end, VM_END_OFF);
    assert_int_equal(boots, 1);
    vm_close(&vm);
}

static enum engine_exit guest_exit(struct engine_vcpu *vcpu)
{
    out(vcpu, POWER_EXIT);
    return spin(vcpu);
}

static void test_debug_exit(void **state)
{
    struct vm vm;

    guests[0] = guest_exit;
    run_vm(&vm, 1, false, 0);
    assert_int_equal(vm.end, VM_END_DEBUG);
    assert_int_equal(vm.end_status, 42);
    vm_close(&vm);
}

static enum engine_exit guest_reset_thrice(struct engine_vcpu *vcpu)
{
    assert_int_equal(vcpu->runs, 1); /* a reset sets the state before the guest runs on */
    assert_int_equal(vcpu->st.rip, 0xfff0);
    vcpu->st.rip = 0;
    out(vcpu, boots < 4 ? POWER_RESET : POWER_OFF);
    return spin(vcpu);
}

static void test_reset(void **state)
{
    struct vm vm;

    guests[0] = guest_reset_thrice;
    guests[1] = spin;
    run_vm(&vm, 2, false, 0);
    assert_int_equal(vm.end, VM_END_OFF);
    assert_int_equal(boots, 4);
    vm_close(&vm);

    run_vm(&vm, 2, true, 0);
    assert_int_equal(vm.end, VM_END_RESET);
    assert_int_equal(boots, 1);
    vm_close(&vm);
}

static enum engine_exit guest_triple_fault(struct engine_vcpu *vcpu)
{
    vcpu->st.rip = 0x1234;
    return ENGINE_SHUTDOWN;
}

static void test_crash(void **state)
{
    struct vm vm;

    guests[0] = guest_triple_fault;
    run_vm(&vm, 1, false, 0);
    assert_int_equal(vm.end, VM_END_CRASH);
    assert_ptr_equal(vm.crashed, vm.vcpus[0]);
    assert_int_equal(vm.crash_state.rip, 0x1234);
    vm_close(&vm);
}

static void test_timeout(void **state)
{
    struct vm vm;

    guests[0] = spin;
    run_vm(&vm, 1, false, NS_PER_MS);
    assert_int_equal(vm.end, VM_END_TIMEOUT);
    vm_close(&vm);
}

/* Halted with interrupts off, it sleeps through INTR and wakes for an NMI. */
static enum engine_exit guest_halts(struct engine_vcpu *vcpu)
{
    if (vcpu->runs == 1)
        return ENGINE_HALT;
    nmis += (atomic_load(&vcpu->conf.port->pending) & PIN_NMI) != 0;
    return guest_off(vcpu);
}

static enum engine_exit guest_wakes_other(struct engine_vcpu *vcpu)
{
    struct vcpu *self = CONTAINER_OF(vcpu->conf.port, struct vcpu, port), *other = self->vm->vcpus[0];

    while (!atomic_load(&other->sleeping))
        ;
    vcpu_port_raise(&other->port, PIN_INTR);
    for (int i = 0; i < 1000; i++)
        assert_true(atomic_load(&other->sleeping));
    vcpu_port_raise(&other->port, PIN_NMI);
    return spin(vcpu);
}

static void lapic_init(struct device *lapic)
{
    lapic_inits++;
}

static int boot_both(struct vm *vm, struct err *err)
{
    struct x86_state st;

    vcpu_get_state(vm->vcpus[1], &st);
    assert_int_equal(st.activity, X86_WAIT_SIPI);
    st.activity = X86_RUNNING;
    vcpu_set_state(vm->vcpus[1], &st);
    return boot(vm, err);
}

static void run_two(guest_fn first, guest_fn second, int (*boot_fn)(struct vm *, struct err *))
{
    const struct vm_conf conf = {
        .engine = &fake_engine, .ram_size = MIB, .ram_low_max = 2 * GIB, .n_vcpus = 2, .crystal_hz = 1000000000};
    struct err err;
    struct vm vm;

    guests[0] = first;
    guests[1] = second;
    assert_int_equal(vm_open(&vm, &conf, &err), 0);
    vm.boot = boot_fn;
    vm.vcpus[1]->lapic_init = lapic_init;
    assert_int_equal(vm_add_device(&vm, &power_type, NULL, NULL, &err), 0);
    assert_int_equal(vm_run(&vm, &err), 0);
    assert_int_equal(vm.end, VM_END_OFF);
    vm_close(&vm);
}

static void test_halt_and_wake(void **state)
{
    nmis = 0;
    run_two(guest_halts, guest_wakes_other, boot_both);
    assert_int_equal(nmis, 1);
}

/* A start-up IPI without INIT before it does start an AP that has never run; INIT sends a running one back to waiting. */
static enum engine_exit guest_starts_ap(struct engine_vcpu *vcpu)
{
    struct vcpu *self = CONTAINER_OF(vcpu->conf.port, struct vcpu, port), *ap = self->vm->vcpus[1];

    atomic_store(&ap->port.sipi_vector, 0x12);
    vcpu_port_raise(&ap->port, PIN_INIT);
    while (!atomic_load(&lapic_inits))
        ;
    vcpu_port_raise(&ap->port, PIN_SIPI);
    return spin(vcpu);
}

static enum engine_exit guest_ap(struct engine_vcpu *vcpu)
{
    assert_int_equal(vcpu->st.seg[X86_CS].base + vcpu->st.rip, 0x12000);
    assert_int_equal(lapic_inits, 1);
    return guest_off(vcpu);
}

static void test_init_sipi(void **state)
{
    lapic_inits = 0;
    run_two(guest_starts_ap, guest_ap, boot);
}

/* ---- a debugger ---- */

static _Atomic int debugger_stops;

/* Stops for the debugger at first, halted; ends the VM when it may go on. */
static enum engine_exit guest_stops(struct engine_vcpu *vcpu)
{
    if (boots > 1)
        return guest_off(vcpu);
    vcpu->debug->hit = NULL;
    vcpu->st.activity = X86_HALTED;
    vcpu->st.rflags = X86_FLAG_IF;
    return ENGINE_DEBUG;
}

/* Behind the reset: the VM still stands, as the debugger left it. Now it lets one vCPU go. */
static void after_reset(void *opaque)
{
    struct vm *vm = opaque;

    assert_int_equal(boots, 2);
    assert_true(atomic_load(&vm->clock.stopped) >= 0);
    assert_true(vm->vcpus[0]->hold && vm->vcpus[1]->hold);
    vm->vcpus[1]->frozen = true;
    vm_resume(vm);
    assert_true(vm->vcpus[1]->hold);
}

static void on_stopped(void *opaque)
{
    struct vm *vm = opaque;
    struct x86_state st;

    debugger_stops++;
    vm_pause(vm);
    assert_true(vm->vcpus[0]->debug_stopped);
    assert_false(vm->vcpus[1]->debug_stopped);
    vcpu_get_state(vm->vcpus[0], &st);
    assert_int_equal(st.activity, X86_HALTED);
    vm_reset(vm);
    assert_int_equal(loop_post(vm->loop, after_reset, vm), 0);
    vm->debugger.stopped = NULL;
}

static int boot_again(struct vm *vm, struct err *err)
{
    boots++;
    return 0;
}

static enum engine_exit guest_runs_once(struct engine_vcpu *vcpu)
{
    assert_int_equal(boots, 1); /* frozen, it does not run after the reset */
    return spin(vcpu);
}

static void test_debugger(void **state)
{
    const struct vm_conf conf = {
        .engine = &fake_engine, .ram_size = MIB, .ram_low_max = 2 * GIB, .n_vcpus = 2, .crystal_hz = 1000000000};
    struct err err;
    struct vm vm;

    boots = 0;
    guests[0] = guest_stops;
    guests[1] = guest_runs_once;
    assert_int_equal(vm_open(&vm, &conf, &err), 0);
    vm.boot = boot_again;
    vm.debugger = (struct vm_debugger){.stopped = on_stopped, .opaque = &vm};
    assert_int_equal(vm_add_device(&vm, &power_type, NULL, NULL, &err), 0);
    vcpu_debug(vm.vcpus[0], true);
    assert_int_equal(vm_run(&vm, &err), 0);
    assert_int_equal(vm.end, VM_END_OFF);
    assert_int_equal(debugger_stops, 1);
    vm_close(&vm);
}

static void test_refuses(void **state)
{
    const struct vm_conf conf = {.engine = &fake_engine, .ram_size = MIB, .n_vcpus = VM_MAX_VCPUS + 1};
    const struct vm_conf small = {.engine = &fake_engine, .ram_size = 1, .n_vcpus = 1};
    struct err err;
    struct vm vm;

    assert_int_equal(vm_open(&vm, &conf, &err), -EINVAL);
    assert_int_equal(vm_open(&vm, &small, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_off), cmocka_unit_test(test_debug_exit), cmocka_unit_test(test_reset),
        cmocka_unit_test(test_crash),     cmocka_unit_test(test_timeout),    cmocka_unit_test(test_halt_and_wake),
        cmocka_unit_test(test_init_sipi), cmocka_unit_test(test_refuses),    cmocka_unit_test(test_debugger),
    };
    return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
