#include "machine/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/acpi_pm.h"
#include "device/lapic.h"
#include "device/serial.h"
#include "machine/acpi.h"
#include "machine/machine_state.h"
#include "machine/memmap.h"
#include "machine/pci_setup.h"
#include "machine/q35.h"

#define MACHINE_GATHER_MOST 32 /* specifications that make one device */

static struct loader_board loader_board(struct vm *vm)
{
    return (struct loader_board){
        .ram = &vm->ram,
        .acpi_base = vm->ram.low - MEMMAP_ACPI_SIZE,
        .acpi_size = MEMMAP_ACPI_SIZE,
        .rsdp = MEMMAP_BIOS,
    };
}

/* All there is of firmware code: a guest that jumps to where a board starts (FFFF:0000) wants it started again. */
#define RESET_VECTOR UINT64_C(0xffff0)
static const uint8_t reset_code[] = {
    0xb0, 0x06,       /* mov al, 6: reset the CPUs and the board */
    0xba, 0xf9, 0x0c, /* mov dx, 0xcf9 */
    0xee,             /* out dx, al */
    0xf4,             /* hlt */
    0xeb, 0xfd,       /* jmp to hlt */
};

/* vm->boot: what firmware and boot loader do on a real board. */
static int boot(struct vm *vm, struct err *err)
{
    struct machine *m = vm->machine;
    struct loader_board board = loader_board(vm);
    const struct acpi_conf acpi = {.base = board.acpi_base, .size = board.acpi_size, .n_cpus = vm->conf.n_vcpus};
    struct x86_state st;

    int r = acpi_write(&vm->ram, &acpi, &board.rsdp, err);
    if (r < 0)
        return r;
    x86_state_reset(&st, true);
    r = loader_boot(&m->loader, &board, &st, err);
    if (r < 0)
        return r;
    r = ram_write(&vm->ram, RESET_VECTOR, reset_code, sizeof(reset_code));
    if (r < 0)
        return err_set(err, r, "memory of %" PRIu64 " bytes has no room for the reset vector", vm->conf.ram_size);
    pci_setup(&vm->pio);
    q35_firmware_state(m->board);
    vcpu_set_state(vm->vcpus[0], &st);
    return 0;
}

_Static_assert(MACHINE_RAM_MOST == MEMMAP_PCI64 - RAM_HIGH_BASE, "RAM ends where the PCI window begins");

static int check_conf(const struct machine_conf *conf, struct err *err)
{
    if (conf->ram_size < MACHINE_RAM_LEAST || conf->ram_size > MACHINE_RAM_MOST || conf->ram_size % RAM_PAGE_SIZE)
        return err_set(err, -EINVAL, "memory of %" PRIu64 " bytes: must be whole 4 KiB pages, " MACHINE_RAM_RANGE,
                       conf->ram_size);
    if (!conf->kernel && !conf->load)
        return err_set(err, -EINVAL, "no kernel to boot");
    if (conf->lockstep && conf->n_attach)
        return err_set(err, -EINVAL, "lockstep with '--%s %.100s': accepted are no devices that work by themselves",
                       conf->attach[0].kind, conf->attach[0].spec);
    return 0;
}

static bool has_kind(const struct machine *m, const char *kind)
{
    const struct attachment *a = m->attachments;

    while (a && strcmp(a->kind->name, kind) != 0)
        a = a->next;
    return a;
}

/* What is asked for, and what every machine has. */
static int open_attachments(struct machine *m, const struct machine_conf *conf, struct err *err)
{
    static const struct machine_attach always[] = {{"balloon", "on"}, {"rng", ""}};
    const char *specs[MACHINE_GATHER_MOST];
    int r = 0;

    for (unsigned i = 0; r == 0 && i < conf->n_attach; i++) {
        const char *kind = conf->attach[i].kind;
        unsigned n = 0;
        if (attach_gathers(kind) && has_kind(m, kind))
            continue;
        for (unsigned j = i; j < conf->n_attach && n < (attach_gathers(kind) ? MACHINE_GATHER_MOST : 1); j++)
            if (strcmp(conf->attach[j].kind, kind) == 0)
                specs[n++] = conf->attach[j].spec;
        r = attach_open(m, kind, specs, n, NULL, err);
    }
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(always) && !conf->bare && !conf->lockstep; i++)
        if (!has_kind(m, always[i].kind) && (!conf->load || machine_state_has_kind(conf->load, always[i].kind)))
            r = attach_open(m, always[i].kind, &always[i].spec, 1, NULL, err);
    return r == 0 && conf->load ? machine_state_check_attached(m, conf->load, err) : r;
}

int machine_open(struct machine **out, const struct machine_conf *conf, struct err *err)
{
    int r = check_conf(conf, err);

    *out = NULL;
    if (r < 0)
        return r;
    struct machine *m = calloc(1, sizeof(*m));
    char *append = strdup(conf->append ? conf->append : "");
    if (!m || !append) {
        r = err_set(err, -ENOMEM, "machine: out of memory");
        goto free_machine;
    }
    m->append = append;
    m->name = conf->name;
    m->source = conf->load;
    r = conf->kernel ? loader_open(&m->loader, conf->kernel, conf->initrd, append, err) : 0;
    if (r < 0)
        goto free_machine;
    const struct vm_conf vm_conf = {
        .engine = conf->engine,
        .lockstep = conf->lockstep,
        .trace = conf->trace,
        .ram_size = conf->ram_size,
        .ram_low_max = MEMMAP_LOW_MAX,
        .n_vcpus = conf->n_cpus,
        .cpu = conf->cpu,
        .code_cache = conf->code_cache,
        .profile = conf->profile,
        .no_reboot = conf->no_reboot || !conf->kernel,
        .found = conf->load ? &conf->load->head.cpuid : NULL,
        .tsc_hz = conf->load ? conf->load->head.tsc_hz : 0,
        .timeout_ns = conf->timeout_ns,
        .crystal_hz = LAPIC_TIMER_HZ,
        .irqchip = conf->irqchip,
    };
    r = vm_open(&m->vm, &vm_conf, err);
    if (r < 0)
        goto close_loader;
    m->vm.machine = m;
    m->vm.boot = boot;
    bool debug_exit = conf->debug_exit || (conf->load && conf->load->head.debug_exit);
    const struct q35_conf q35_conf = {.debug_exit = debug_exit, .ejected = attach_ejected, .opaque = m};
    r = q35_open(&m->board, &m->vm, &q35_conf, err);
    if (r < 0)
        goto close_vm;
    r = open_attachments(m, conf, err);
    if (r < 0)
        goto close_vm;
    /* Better now than after the terminal is raw. */
    const struct loader_board board = loader_board(&m->vm);
    r = conf->kernel ? loader_check(&m->loader, &board, err) : 0;
    if (r < 0)
        goto close_vm;
    *out = m;
    return 0;

close_vm:
    vm_close(&m->vm);
    attach_close_all(m);
    q35_close(m->board);
close_loader:
    loader_close(&m->loader);
free_machine:
    free(append);
    free(m);
    return r;
}

void machine_close(struct machine *m)
{
    if (!m)
        return;
    chardev_close(m->console); /* on its loop, which the VM owns */
    vm_close(&m->vm);
    attach_close_all(m);
    q35_close(m->board);
    loader_close(&m->loader);
    free(m->append);
    free(m);
}

void machine_connect_console(struct machine *m, struct chardev *console)
{
    m->console = console;
    serial_connect(m->board->serial, console);
}

int machine_load(struct machine *m, struct err *err)
{
    int r = machine_state_load(m, m->source, err);

    m->source = NULL;
    return r;
}

void machine_press_power(struct machine *m)
{
    acpi_pm_press_button(m->board->acpi_pm);
}

/* ---- pause ---- */

void machine_pause(struct machine *m, const char *reason)
{
    if (m->paused)
        return;
    m->paused = true;
    snprintf(m->pause_reason, sizeof(m->pause_reason), "%s", reason);
    vm_pause(&m->vm);
    for (const struct attachment *a = m->attachments; a; a = a->next)
        virtio_pci_pause(a->dev);
}

void machine_resume(struct machine *m)
{
    if (!m->paused)
        return;
    m->paused = false;
    for (const struct attachment *a = m->attachments; a; a = a->next)
        virtio_pci_resume(a->dev);
    vm_resume(&m->vm);
}

struct wanted_pause {
    struct machine *m;
    char reason[MACHINE_REASON_SIZE];
};

static void pause_wanted(void *opaque)
{
    struct wanted_pause *wanted = opaque;

    if (!wanted->m->paused)
        log_warn("the VM is paused: %s; the control socket's resume lets it go on", wanted->reason);
    machine_pause(wanted->m, wanted->reason);
    free(wanted);
}

void machine_want_pause(struct machine *m, const char *reason)
{
    struct wanted_pause *wanted = malloc(sizeof(*wanted));

    if (!wanted)
        return; /* the guest goes on, and who asked has told of the reason */
    wanted->m = m;
    snprintf(wanted->reason, sizeof(wanted->reason), "%s", reason);
    if (loop_post(m->vm.loop, pause_wanted, wanted) < 0)
        free(wanted);
}
