#include "machine/q35.h"

#include <errno.h>
#include <stdlib.h>

#include "device/acpi_pm.h"
#include "device/debugexit.h"
#include "device/fwcfg.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/lapic.h"
#include "device/lpc.h"
#include "device/mch.h"
#include "device/pci_hotplug.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/reset.h"
#include "device/rtc.h"
#include "device/serial.h"
#include "machine/memmap.h"

#define IRQ_TIMER      0
#define IRQ_KEYBOARD   1
#define IRQ_SERIAL     4
#define IRQ_SCI        9
#define IRQ_MOUSE      12
#define GSI_TIMER      2 /* the IOAPIC's pin for IRQ 0 */
#define GSI_FIRST_PIRQ 16
#define GSI_FIRST_HPET 20 /* where ICH9 lets its timers go; shared with PIRQE# to PIRQH# */

/* ---- wires ---- */

/* A line's number: the input, its driver from bit 8. */
#define LINE(input, driver) ((unsigned)(driver) << 8 | (input))
#define LINE_INPUT(n)       ((n)&0xff)
#define LINE_DRIVER(n)      ((n) >> 8)

static bool drive(uint8_t *drivers, unsigned driver, bool level)
{
    *drivers = (uint8_t)(level ? *drivers | 1u << driver : *drivers & ~(1u << driver));
    return *drivers;
}

static void set_pic_locked(struct board *b, unsigned n, bool level)
{
    const struct irq_line line = pic_line(b->pic, LINE_INPUT(n));
    bool up = drive(&b->pic_drivers[LINE_INPUT(n)], LINE_DRIVER(n), level);

    if (!b->held)
        irq_set(&line, up);
}

static void set_gsi_locked(struct board *b, unsigned n, bool level)
{
    const struct irq_line line = ioapic_line(b->ioapic, LINE_INPUT(n));
    bool up = drive(&b->gsi_drivers[LINE_INPUT(n)], LINE_DRIVER(n), level);

    if (!b->held)
        irq_set(&line, up);
}

static void pic_set(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    pthread_mutex_lock(&b->wires);
    set_pic_locked(b, n, level);
    pthread_mutex_unlock(&b->wires);
}

static void gsi_set(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    pthread_mutex_lock(&b->wires);
    set_gsi_locked(b, n, level);
    pthread_mutex_unlock(&b->wires);
}

/* An ISA interrupt goes to both. */
static void isa_set(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    pthread_mutex_lock(&b->wires);
    set_pic_locked(b, n, level);
    set_gsi_locked(b, LINE_INPUT(n) == IRQ_TIMER ? n - IRQ_TIMER + GSI_TIMER : n, level);
    pthread_mutex_unlock(&b->wires);
}

static struct irq_line isa_line(struct board *b, unsigned irq, enum q35_driver driver)
{
    return (struct irq_line){.set = isa_set, .opaque = b, .n = LINE(irq, driver)};
}

/* ---- devices ---- */

static int open_lapics(struct board *b, struct err *err)
{
    struct vm *vm = b->vm;

    for (unsigned i = 0; i < vm->conf.n_vcpus; i++) {
        struct vcpu *vcpu = vm->vcpus[i];
        const struct lapic_conf conf = {
            .apic_id = i,
            .bsp = i == 0,
            .phys_bits = VM_PHYS_BITS,
            .port = &vcpu->port,
            .mmio = &vcpu->mmio,
            .bus = &b->apic_bus,
            .pic_ack = i == 0 ? pic_ack : NULL,
            .pic = i == 0 ? &b->pic : NULL,
        };
        int r = vm_add_device(vm, &lapic_type, &conf, &vcpu->lapic, err);
        if (r < 0)
            return r;
        vcpu->lapic_init = lapic_init_reset;
    }
    return 0;
}

/* The way from a wire to a vCPU, from its end: each stage is there before the one that drives it. */
static int open_interrupts(struct board *b, struct err *err)
{
    b->apic_bus.chip = b->vm->env.irqchip;
    int r = open_lapics(b, err);

    if (r == 0)
        r = vm_add_device(b->vm, &ioapic_type, &(struct ioapic_conf){.bus = &b->apic_bus}, &b->ioapic, err);
    if (r == 0)
        r = vm_add_device(b->vm, &pic_type, &(struct pic_conf){.intr = lapic_lint(b->vm->vcpus[0]->lapic, 0)}, &b->pic,
                          err);
    b->vm->env.msi = apic_bus_msi(&b->apic_bus);
    for (unsigned i = 0; i < 16; i++)
        b->vm->env.isa_irq[i] = isa_line(b, i, Q35_ISA);
    return r;
}

static int open_chipset(struct board *b, const struct q35_conf *conf, struct err *err)
{
    struct vm *vm = b->vm;
    struct lpc_conf lpc = {.pm_base = MEMMAP_PM_PORT, .rcba = MEMMAP_RCBA};

    int r = vm_add_device(vm, &mch_type, &(struct mch_conf){.ecam_base = MEMMAP_ECAM_BASE}, NULL, err);
    if (r == 0)
        r = vm_add_device(vm, &acpi_pm_type, &(struct acpi_pm_conf){.sci = isa_line(b, IRQ_SCI, Q35_SCI)}, &b->acpi_pm,
                          err);
    lpc.acpi_pm = b->acpi_pm;
    for (unsigned i = 0; i < LPC_N_PIRQS; i++)
        lpc.gsi[i] = (struct irq_line){.set = gsi_set, .opaque = b, .n = LINE(GSI_FIRST_PIRQ + i, Q35_PIRQ)};
    for (unsigned i = 0; i < 16; i++)
        lpc.pic[i] = (struct irq_line){.set = pic_set, .opaque = b, .n = LINE(i, Q35_PIRQ)};
    if (r == 0)
        r = vm_add_device(vm, &lpc_type, &lpc, NULL, err);
    if (r == 0)
        r = vm_add_device(vm, &reset_type, NULL, NULL, err);
    if (r == 0)
        r = vm_add_device(
            vm, &pci_hotplug_type,
            &(struct pci_hotplug_conf){.acpi_pm = b->acpi_pm, .ejected = conf->ejected, .opaque = conf->opaque},
            &b->hotplug, err);
    return r;
}

static int open_legacy(struct board *b, const struct q35_conf *conf, struct err *err)
{
    struct vm *vm = b->vm;
    struct hpet_conf hpet = {0};
    struct pit_conf pit;
    struct rtc_conf rtc = {.ram_low = vm->ram.low, .ram_high = vm->ram.high, .n_cpus = vm->conf.n_vcpus};
    const struct i8042_conf keyboard = {.kbd_irq = vm->env.isa_irq[IRQ_KEYBOARD],
                                        .aux_irq = vm->env.isa_irq[IRQ_MOUSE]};
    const struct serial_conf serial = {.port = SERIAL_COM1, .irq = vm->env.isa_irq[IRQ_SERIAL]};

    for (unsigned i = GSI_FIRST_HPET; i < HPET_PINS; i++)
        hpet.pin[i] = (struct irq_line){.set = gsi_set, .opaque = b, .n = LINE(i, Q35_HPET)};
    int r = vm_add_device(vm, &hpet_type, &hpet, &b->hpet, err);
    if (r < 0)
        return r;
    pit.irq = hpet_legacy_input(b->hpet, 0);
    rtc.irq = hpet_legacy_input(b->hpet, 1);
    r = vm_add_device(vm, &pit_type, &pit, NULL, err);
    if (r == 0)
        r = vm_add_device(vm, &rtc_type, &rtc, NULL, err);
    if (r == 0)
        r = vm_add_device(vm, &i8042_type, &keyboard, NULL, err);
    if (r == 0)
        r = vm_add_device(vm, &serial_type, &serial, &b->serial, err);
    if (r == 0)
        r = vm_add_device(vm, &fwcfg_type, &(struct fwcfg_conf){.n_cpus = vm->conf.n_vcpus}, &b->fwcfg, err);
    if (r == 0 && conf->debug_exit)
        r = vm_add_device(vm, &debugexit_type, NULL, NULL, err);
    return r;
}

int q35_open(struct board **out, struct vm *vm, const struct q35_conf *conf, struct err *err)
{
    struct board *b = calloc(1, sizeof(*b));

    *out = NULL;
    if (!b)
        return err_set(err, -ENOMEM, "board: out of memory");
    b->vm = vm;
    pthread_mutex_init(&b->wires, NULL);
    *out = b; /* from here on the caller's to close, after the VM's devices */
    int r = pci_bus_open(&b->pci, &vm->pio, &vm->mmio, err);
    if (r < 0)
        return r;
    vm->env.pci = b->pci;
    r = open_interrupts(b, err);
    if (r == 0)
        r = open_chipset(b, conf, err);
    if (r == 0)
        r = open_legacy(b, conf, err);
    return r;
}

void q35_close(struct board *board)
{
    if (!board)
        return;
    pci_bus_close(board->pci);
    pthread_mutex_destroy(&board->wires);
    free(board);
}

void q35_hold_wires(struct board *board, bool hold)
{
    pthread_mutex_lock(&board->wires);
    board->held = hold;
    for (unsigned i = 0; !hold && i < ARRAY_SIZE(board->pic_drivers); i++) {
        const struct irq_line line = pic_line(board->pic, i);
        irq_set(&line, board->pic_drivers[i]);
    }
    for (unsigned i = 0; !hold && i < ARRAY_SIZE(board->gsi_drivers); i++) {
        const struct irq_line line = ioapic_line(board->ioapic, i);
        irq_set(&line, board->gsi_drivers[i]);
    }
    pthread_mutex_unlock(&board->wires);
}

void q35_state(struct board *board, struct stream *s)
{
    stream_section(s, "board", 1);
    pci_bus_state(board->pci, s);
}

void q35_firmware_state(struct board *board)
{
    lapic_virtual_wire(board->vm->vcpus[0]->lapic);
}
