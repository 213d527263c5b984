/*
 * A machine: a VM (vm/vm.h) with the Q35 board around it and a kernel to boot. All that the command line knows of rooms below.
 *
 * Threads: everything here on the thread that calls vm_run(), but machine_press_power() and machine_want_pause(),
 * which any may call.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include "core/chardev.h"
#include "machine/attach.h"
#include "machine/loader.h"
#include "vm/vm.h"

/* Guest RAM in bytes: enough to load something, and below the 64-bit PCI window (machine/memmap.h). */
#define MACHINE_RAM_LEAST (4 * MIB)
#define MACHINE_RAM_MOST  (508 * GIB)
#define MACHINE_RAM_RANGE "4M to 508G"

/* What is attached from the start, by kind and specification (machine/attach.h). */
struct machine_attach {
    const char *kind, *spec;
};

/* What the machine tells its owner, on the loop's thread. */
struct machine_hooks {
    void (*detached)(void *opaque, const char *id); /* the guest has let go of it, and it is gone */
    void *opaque;
};

/* Who is told, on the loop's thread, that the user at a port wants the state saved. */
struct machine_saver {
    void (*save)(void *opaque);
    void *opaque;
};

struct machine_conf {
    const struct engine_type *engine;
    const struct engine_trace *trace;  /* see struct engine_conf */
    struct lockstep *lockstep;         /* see struct engine_conf */
    struct machine_state_source *load; /* the state it is to go on from (machine_state.h), or NULL; the caller's */
    const char *kernel;     /* path: bzImage, ELF64 with a PVH note, or multiboot 1 ELF32; with `load`, or NULL */
    const char *initrd;     /* path, or NULL */
    const char *append;     /* the kernel's command line, or NULL */
    uint64_t ram_size;      /* bytes, whole 4 KiB pages, MACHINE_RAM_LEAST to MACHINE_RAM_MOST */
    unsigned n_cpus;        /* 1 to VM_MAX_VCPUS */
    enum x86_cpu_model cpu; /* what the guest finds; 0: the most that engine and host can do */
    uint64_t code_cache; /* bytes of translated code, ENGINE_CODE_CACHE_LEAST to _MOST, or 0: the engine's own idea */
    bool profile;        /* as in struct engine_conf */
    enum engine_irqchip irqchip;
    bool debug_exit;    /* port 0xf4 ends the VM with status (v << 1) | 1 */
    bool no_reboot;     /* a reset ends the VM */
    int64_t timeout_ns; /* 0: none */
    const char *name;   /* the VM's, or NULL; the caller's, as long as the machine is there */
    const struct machine_attach *attach;
    unsigned n_attach;
    bool bare; /* without the devices that every machine has unless it is said otherwise: random numbers, balloon */
};

#define MACHINE_REASON_SIZE 256

struct machine {
    struct vm vm;
    struct loader loader;
    struct machine_state_source *source; /* what machine_load() loads, until it has; or NULL */
    char *append;
    const char *name; /* or NULL */
    struct chardev *console;
    struct board *board;               /* q35.c */
    struct attachment *attachments;    /* in order of opening */
    struct iothread *io;               /* of attachments without one of their own; or NULL */
    _Atomic uint32_t ejected;          /* slots to be closed, a bit each */
    struct agent *agent;               /* console/agent.h: the port's, which closes it; or NULL */
    struct snapshot_job *snapshot_job; /* control/snapshot.c: under way, or NULL */
    struct backup_job *backup_job;     /* control/backup_command.c: the same */
    struct machine_hooks hooks;        /* set before vm_run(), or nobody */
    struct machine_saver saver;        /* the same */
    bool paused;
    char pause_reason[MACHINE_REASON_SIZE];
};

/* Maps the files, checks them, and builds the board; err names what is wrong, and of what file. */
int machine_open(struct machine **machine, const struct machine_conf *conf, struct err *err) MUST_CHECK;

/* Ends the threads, and closes the console too. */
void machine_close(struct machine *machine);

/*
 * Joins the first serial port to `console`, which was opened on machine->vm.loop and is the machine's from now on. At most once,
 * before vm_run(); without it the port's output goes nowhere.
 */
void machine_connect_console(struct machine *machine, struct chardev *console);

/*
 * Puts the state in that conf.load named, after the console was connected and before vm_run(). -errno and one line; then the machine is good for nothing but
 * to be closed.
 */
int machine_load(struct machine *machine, struct err *err) MUST_CHECK;

/* A short press on the power button: the guest gets an ACPI event. Any thread. */
void machine_press_power(struct machine *machine);

/*
 * Stops the guest, its clock and its devices, until machine_resume(); reason: for people, one line. Does nothing when it is paused already. A
 * request to a disk that failed and waits for that is made again on resuming.
 */
void machine_pause(struct machine *machine, const char *reason);
void machine_resume(struct machine *machine);

/* machine_pause() soon, and a line in the log; from any thread. */
void machine_want_pause(struct machine *machine, const char *reason);

#endif
