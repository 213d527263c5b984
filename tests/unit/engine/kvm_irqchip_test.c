/*
 * KVM's own interrupt controllers, local APICs alone and all of them, against whatever /dev/kvm there is; each test on both. Code is of real mode at
 * CODE_AT, with vectors at 0; DS is the local APIC's page.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device/apic_bus.h"
#include "device/ioapic.h"
#include "device/lapic.h"
#include "device/pic.h"
#include "engine/kvm_probe.h"
#include "unit.h"
#include "vm/vm.h"

#define RAM_SIZE   (1 * MIB)
#define CODE_AT    0x1000
#define AP_AT      0x2000
#define HANDLER_AT 0x4000
#define STACK_AT   0x8000
#define BELL_AT    0xd0000000u
#define PORT_SEEN  0x80 /* an interrupt is being handled */
#define PORT_DONE  0x81 /* and is done: out of the guest */
#define PIN        20
#define VECTOR     0x40
#define MESSAGE    UINT64_C(0xfee00000)
#define RTE_LEVEL  0x8000u
#define REMOTE_IRR 0x4000u

extern const struct engine_type kvm_engine;

struct fixture {
    struct vm vm;
    struct apic_bus bus;
    struct device *ioapic, *pic;
    const struct irqchip *chip;
    unsigned seen, done, rung;
    unsigned hold; /* this often the device keeps its line up when it is seen */
};

static int nothing(struct vm *vm, struct err *err)
{
    return 0;
}

static void lower(struct fixture *f)
{
    const struct irq_line line = ioapic_line(f->ioapic, PIN);
    irq_set(&line, false);
}

static void port_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct fixture *f = opaque;

    if (off == 0) {
        f->seen++;
        if (f->hold)
            f->hold--;
        else
            lower(f);
        return;
    }
    f->done++;
    for (unsigned i = 0; i < 2; i++)
        vcpu_port_raise(&f->vm.vcpus[i]->port, PIN_KICK);
}

static void bell_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    ((struct fixture *)opaque)->rung++;
}

static uint64_t no_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return 0;
}

static int add_devices(struct fixture *f, struct err *err)
{
    const struct bus_region ports = {.base = PORT_SEEN, .size = 2, .read = no_read, .write = port_write, .opaque = f};
    const struct bus_region bell = {.base = BELL_AT, .size = 16, .read = no_read, .write = bell_write, .opaque = f};
    int r = 0;

    f->bus.chip = f->vm.env.irqchip;
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        struct vcpu *vcpu = f->vm.vcpus[i];
        const struct lapic_conf conf = {
            .apic_id = i,
            .bsp = i == 0,
            .phys_bits = VM_PHYS_BITS,
            .port = &vcpu->port,
            .mmio = &vcpu->mmio,
            .bus = &f->bus,
            .pic_ack = i == 0 ? pic_ack : NULL,
            .pic = i == 0 ? &f->pic : NULL,
        };
        r = vm_add_device(&f->vm, &lapic_type, &conf, &vcpu->lapic, err);
    }
    if (r == 0)
        r = vm_add_device(&f->vm, &ioapic_type, &(struct ioapic_conf){.bus = &f->bus}, &f->ioapic, err);
    if (r == 0)
        r = vm_add_device(&f->vm, &pic_type, &(struct pic_conf){.intr = lapic_lint(f->vm.vcpus[0]->lapic, 0)}, &f->pic,
                          err);
    return r < 0 ? r : bus_add(&f->vm.pio, &ports) + bus_add(&f->vm.mmio, &bell);
}

static struct fixture *make(enum engine_irqchip which)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct vm_conf conf = {.engine = &kvm_engine,
                                 .ram_size = RAM_SIZE,
                                 .ram_low_max = RAM_SIZE,
                                 .n_vcpus = 2,
                                 .crystal_hz = LAPIC_TIMER_HZ,
                                 .irqchip = which};
    struct err err = {0};

    assert_non_null(f);
    int r = vm_open(&f->vm, &conf, &err);
    if (r < 0)
        print_message("# %s\n", err.msg);
    assert_int_equal(r, 0);
    f->vm.boot = nothing;
    assert_int_equal(add_devices(f, &err), 0);
    f->chip = f->vm.env.irqchip;
    for (unsigned i = 0; i < 2; i++) {
        struct x86_state st;
        x86_state_reset(&st, i == 0);
        vcpu_set_state(f->vm.vcpus[i], &st);
    }
    lapic_virtual_wire(f->vm.vcpus[0]->lapic);
    return f;
}

static void unmake(struct fixture *f)
{
    vm_close(&f->vm);
    free(f);
}

static enum engine_irqchip kinds[] = {ENGINE_IRQCHIP_SPLIT, ENGINE_IRQCHIP_KERNEL};

/* The state is the kind before, and the fixture after. */
static int setup(void **state)
{
    enum engine_irqchip *kind = *state;

    *state = access(KVM_PROBE_DEVICE, R_OK | W_OK) < 0 ? NULL : make(*kind);
    return 0;
}

static int teardown(void **state)
{
    if (*state)
        unmake(*state);
    return 0;
}

static struct fixture *fixture(void **state)
{
    if (!*state)
        skip();
    return *state;
}

static void poke(struct fixture *f, uint64_t gpa, const void *bytes, size_t len)
{
    assert_int_equal(ram_write(&f->vm.ram, gpa, bytes, len), 0);
}

/* out 0x80,al; mov dword [0xb0],0 (EOI); out 0x81,al; iret */
static const uint8_t handler[] = {0xe6, 0x80, 0x66, 0xc7, 0x06, 0xb0, 0, 0, 0, 0, 0, 0xe6, 0x81, 0xcf};
/* sti; 1: hlt; jmp 1b */
static const uint8_t idle[] = {0xfb, 0xf4, 0xeb, 0xfd};

static void start(struct fixture *f, const void *code, size_t len)
{
    const uint16_t entry[2] = {HANDLER_AT, 0};
    struct x86_state st;

    for (unsigned vector = VECTOR; vector < VECTOR + 8; vector++)
        poke(f, vector * 4, entry, sizeof(entry));
    poke(f, HANDLER_AT, handler, sizeof(handler));
    poke(f, CODE_AT, code, len);
    x86_state_reset(&st, true);
    st.seg[X86_CS].sel = 0;
    st.seg[X86_CS].base = 0;
    st.seg[X86_DS].base = LAPIC_DEFAULT_BASE;
    st.rip = CODE_AT;
    st.gpr[X86_RSP] = STACK_AT;
    vcpu_set_state(f->vm.vcpus[0], &st);
}

/* Until the guest says that it is done. */
static void run(struct fixture *f, unsigned cpu)
{
    struct vcpu *vcpu = f->vm.vcpus[cpu];

    assert_int_equal(kvm_engine.run(vcpu->engine_vcpu, 0), ENGINE_KICKED);
    for (unsigned i = 0; i < 2; i++)
        vcpu_port_lower(&f->vm.vcpus[i]->port, PIN_KICK);
}

/* ---- what comes to the guest ---- */

static void message(void **state)
{
    struct fixture *f = fixture(state);

    start(f, idle, sizeof(idle));
    assert_true(f->chip->send(f->chip->opaque, MESSAGE, VECTOR));
    run(f, 0);
    assert_int_equal(f->seen, 1);
    assert_int_equal(f->vm.vcpus[0]->stats.exits[ENGINE_EXIT_HLT], 0);
    assert_false(f->chip->send(f->chip->opaque, MESSAGE | 7 << 12, VECTOR)); /* nobody's */
}

static void set_rte(struct fixture *f, uint32_t low)
{
    struct irqchip_ioapic regs;
    uint32_t select = 0x10 + 2 * PIN;

    if (!f->chip->whole) {
        bus_access(&f->vm.mmio, IOAPIC_BASE, &select, 4, true);
        bus_access(&f->vm.mmio, IOAPIC_BASE + 0x10, &low, 4, true);
        return;
    }
    assert_int_equal(f->chip->ioapic_get(f->chip->opaque, &regs), 0);
    regs.rte[PIN] = low;
    assert_int_equal(f->chip->ioapic_put(f->chip->opaque, &regs), 0);
}

static uint32_t get_rte(struct fixture *f)
{
    struct irqchip_ioapic regs;
    uint32_t low;

    if (f->chip->whole) {
        assert_int_equal(f->chip->ioapic_get(f->chip->opaque, &regs), 0);
        return (uint32_t)regs.rte[PIN];
    }
    bus_access(&f->vm.mmio, IOAPIC_BASE + 0x10, &low, 4, false); /* selected already */
    return low;
}

/* Whether a CPU runs the guest. KVMs that interpret kernel code are let off what they are known to do otherwise. */
static bool on_cpu(void)
{
    struct err err;
    uint64_t rate;

    return getenv("VIREO_TEST_KVM") || kvm_probe(KVM_PROBE_DEVICE, &rate, &err) == 0;
}

/* A level that is still up when its EOI comes is an interrupt again. */
static void level(void **state)
{
    struct fixture *f = fixture(state);
    const struct irq_line line = ioapic_line(f->ioapic, PIN);

    start(f, idle, sizeof(idle));
    set_rte(f, VECTOR | RTE_LEVEL);
    f->hold = 1;
    irq_set(&line, true);
    assert_true(get_rte(f) & REMOTE_IRR);
    run(f, 0);
    run(f, 0);
    assert_int_equal(f->seen, 2);
    if (!f->chip->whole || on_cpu())
        assert_false(get_rte(f) & REMOTE_IRR);
    assert_int_equal(f->vm.vcpus[0]->stats.exits[ENGINE_EXIT_EOI], f->chip->whole ? 0 : 2);
}

static void pic_vector(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t val;
    } program[] = {{0x20, 0x11}, {0x21, VECTOR}, {0x21, 4}, {0x21, 3}, {0x21, 0xf7}}; /* automatic EOI; input 3 alone */
    struct fixture *f = fixture(state);
    const struct irq_line line = pic_line(f->pic, 3);
    struct irqchip_pic regs = {.base = VECTOR, .aeoi = true, .ic4 = true, .imr = 0xf7};

    start(f, idle, sizeof(idle));
    if (f->chip->whole)
        assert_int_equal(f->chip->pic_put(f->chip->opaque, false, &regs), 0);
    for (size_t i = 0; i < ARRAY_SIZE(program) && !f->chip->whole; i++)
        bus_access(&f->vm.pio, program[i].port, (void *)&program[i].val, 1, true);
    irq_pulse(&line);
    run(f, 0);
    assert_int_equal(f->seen, 1);
    irq_pulse(&line);
    run(f, 0);
    assert_int_equal(f->seen, 2);
    assert_int_equal(f->vm.vcpus[0]->stats.exits[ENGINE_EXIT_INTERRUPT], f->chip->whole ? 0 : 2);
}

static void nmi(void **state)
{
    struct fixture *f = fixture(state);
    const uint16_t entry[2] = {HANDLER_AT, 0};

    start(f, idle, sizeof(idle));
    poke(f, X86_NMI * 4, entry, sizeof(entry));
    vcpu_port_raise(&f->vm.vcpus[0]->port, PIN_NMI);
    run(f, 0);
    assert_int_equal(f->seen, 1);
}

/* ---- wires and doorbells ---- */

static void ring_wire(int fd)
{
    const uint64_t one = 1;
    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void wires(void **state)
{
    struct fixture *f = fixture(state);
    int fd = eventfd(0, EFD_CLOEXEC), other = eventfd(0, EFD_CLOEXEC);

    start(f, idle, sizeof(idle));
    int wire = f->chip->wire_open(f->chip->opaque, fd), second = f->chip->wire_open(f->chip->opaque, other);
    assert_true(wire >= 0 && second > wire);
    assert_int_equal(f->chip->wire_set(f->chip->opaque, wire, MESSAGE, VECTOR), 0);
    assert_int_equal(f->chip->wire_set(f->chip->opaque, second, MESSAGE | 7 << 12, VECTOR), 0);
    ring_wire(fd);
    run(f, 0);
    ring_wire(other); /* nobody's */
    assert_int_equal(f->chip->wire_set(f->chip->opaque, wire, MESSAGE, VECTOR + 1), 0);
    ring_wire(fd);
    run(f, 0);
    assert_int_equal(f->seen, 2);
    f->chip->wire_close(f->chip->opaque, wire, fd);
    ring_wire(fd);                                                   /* nobody hears of it */
    assert_int_equal(f->chip->wire_open(f->chip->opaque, fd), wire); /* free again, and without a message */
    f->chip->wire_close(f->chip->opaque, wire, fd);
    f->chip->wire_close(f->chip->opaque, second, other);
    assert_true(f->chip->send(f->chip->opaque, MESSAGE, VECTOR));
    run(f, 0);
    assert_int_equal(f->seen, 3);
    close(fd);
    close(other);
}

static void doorbells(void **state)
{
    struct fixture *f = fixture(state);
    const struct doorbells *bells = f->vm.env.doorbells;
    /* mov word [bx],7; mov word [bx],8; out 0x81,al; mov word [bx],9; out 0x81,al */
    static const uint8_t code[] = {0xc7, 0x07, 7, 0, 0xc7, 0x07, 8, 0, 0xe6, 0x81, 0xc7, 0x07, 9, 0, 0xe6, 0x81};
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct x86_state st;
    uint64_t count = 0;

    assert_non_null(bells);
    start(f, code, sizeof(code));
    vcpu_get_state(f->vm.vcpus[0], &st);
    st.seg[X86_DS].base = BELL_AT;
    vcpu_set_state(f->vm.vcpus[0], &st);
    assert_int_equal(bells->set(bells->opaque, BELL_AT, 2, fd, true), 0);
    run(f, 0);
    assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 2);
    assert_int_equal(f->rung, 0);
    assert_int_equal(f->vm.vcpus[0]->stats.exits[ENGINE_EXIT_MMIO_WRITE], 0);
    assert_int_equal(bells->set(bells->opaque, BELL_AT, 2, fd, false), 0);
    run(f, 0);
    assert_int_equal(f->rung, 1);
    close(fd);
}

/* ---- processors ---- */

static void second_processor(void **state)
{
    struct fixture *f = fixture(state);
    /* mov dword [0x310],1<<24; mov dword [0x300],INIT; mov dword [0x300],SIPI of page 2; out 0x81,al; hlt */
    static const uint8_t code[] = {0x66, 0xc7, 0x06, 0x10, 0x03, 0,    0, 0,    1,    0x66,
                                   0xc7, 0x06, 0x00, 0x03, 0,    0x45, 0, 0,    0x66, 0xc7,
                                   0x06, 0x00, 0x03, 0x02, 0x46, 0,    0, 0xe6, 0x81, 0xf4};
    static const uint8_t ap[] = {0xb3, 0x77, 0xe6, 0x81, 0xf4}; /* mov bl,0x77; out 0x81,al; hlt */
    struct x86_state st;

    vcpu_get_state(f->vm.vcpus[1], &st);
    assert_int_equal(st.activity, X86_WAIT_SIPI);
    poke(f, AP_AT, ap, sizeof(ap));
    start(f, code, sizeof(code));
    run(f, 0);
    run(f, 1);
    vcpu_get_state(f->vm.vcpus[1], &st);
    assert_int_equal(st.activity, X86_RUNNING);
    assert_int_equal(st.seg[X86_CS].base, AP_AT);
    assert_int_equal(st.gpr[X86_RBX], 0x77);
}

/* ---- saved state ---- */

static void save(struct device *dev, struct stream *s)
{
    stream_init_save(s);
    assert_int_equal(device_state(dev, s), 0);
}

/* Saves `from`, loads that into `to`, and saves this again. */
static void goes_over(struct device *from, struct device *to)
{
    struct stream first, load, second;

    save(from, &first);
    stream_init_load(&load, first.data, first.len);
    assert_int_equal(device_state(to, &load), 0);
    save(to, &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    stream_fini(&first);
    stream_fini(&second);
}

static void write_lapic(struct fixture *f, unsigned reg, uint32_t val)
{
    bus_access(&f->vm.vcpus[1]->mmio, LAPIC_DEFAULT_BASE + reg, &val, 4, true);
}

/* A local APIC of the machine's own, to the kernel's, back, and there again. */
static void lapic_goes_over(void **state)
{
    struct fixture *f = fixture(state), *user = make(ENGINE_IRQCHIP_USER);
    struct vcpu *from = user->vm.vcpus[1], *to = f->vm.vcpus[1];

    write_lapic(user, 0xf0, 0x1ff);
    write_lapic(user, 0x80, 0x60);
    write_lapic(user, 0xd0, 0x02000000);
    write_lapic(user, 0x320, 0x400ee); /* deadlines */
    write_lapic(user, 0x3e0, 0xb);
    write_lapic(user, 0x360, 0x10400);
    write_lapic(user, 0x310, 0x05000000);
    write_lapic(user, 0x300, 0x4444);
    assert_true(apic_bus_send(&user->bus, &(struct apic_msg){.dest = 1, .vector = 0x55, .level = true}));
    goes_over(from->lapic, to->lapic);
    goes_over(to->lapic, from->lapic);
    write_lapic(user, 0xd0, 0); /* which x2APIC derives */
    assert_int_equal(from->port.apic_ops->msr_write(from->port.apic, 0x1b, LAPIC_DEFAULT_BASE | 0xc00), 0);
    goes_over(from->lapic, to->lapic);
    device_reset(to->lapic);
    goes_over(to->lapic, from->lapic);
    unmake(user);
}

static void others_go_over(void **state)
{
    struct fixture *f = fixture(state), *user = make(ENGINE_IRQCHIP_USER);
    const struct irq_line line = ioapic_line(user->ioapic, PIN);
    static const uint8_t icw[] = {0x70, 4, 3, 0x40};
    uint32_t select = 0x10 + 2 * PIN, low = VECTOR | RTE_LEVEL | 1 << 16;
    uint8_t icw1 = 0x11;

    bus_access(&user->vm.mmio, IOAPIC_BASE, &select, 4, true);
    bus_access(&user->vm.mmio, IOAPIC_BASE + 0x10, &low, 4, true);
    irq_set(&line, true);
    bus_access(&user->vm.pio, 0x20, &icw1, 1, true);
    for (size_t i = 0; i < sizeof(icw); i++)
        bus_access(&user->vm.pio, 0x21, (void *)&icw[i], 1, true);
    goes_over(user->ioapic, f->ioapic);
    goes_over(f->ioapic, user->ioapic);
    goes_over(f->pic, user->pic);
    unmake(user);
}

#define TEST(name, kind)                                     \
    {                                                        \
#name " " #kind, name, setup, teardown, &kinds[kind] \
    }
#define BOTH(name) TEST(name, 0), TEST(name, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(message),          BOTH(level),           BOTH(pic_vector),     BOTH(nmi), BOTH(wires), BOTH(doorbells),
        BOTH(second_processor), BOTH(lapic_goes_over), BOTH(others_go_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
