/*
 * A machine's saved state: what it is made of, memory, vCPUs, board and devices, in the blocks of a state file (vm/state_file.h). Disks' contents, what the
 * host's ends of interfaces, ports and sockets hold, and files the kernel came from are not in it.
 *
 *   MACHINE  first: struct machine_state_head
 *   RAM      any number: runs of pages that are not all zeroes
 *   VCPU     one for each, by index
 *   BOARD    one: what is no device's
 *   DEVICE   one for each device: its label, then its own
 *
 * All of it is as hostile as a guest, or more: file and device are checked, and nothing runs before everything is in its place.
 *
 * Threads: the loop's, or before vm_run().
 */
#ifndef MACHINE_MACHINE_STATE_H
#define MACHINE_MACHINE_STATE_H

#include "machine/attach.h"
#include "vm/cpuid_table.h"
#include "vm/vm_state.h"

#define MACHINE_STATE_ATTACHMENTS 32 /* there are no more slots */
#define MACHINE_STATE_LABEL       64

struct machine_state_attachment {
    char kind[16];
    char id[ATTACH_ID_SIZE];
    uint8_t slot;
};

/* What a machine must be like for a state to go into it. */
struct machine_state_head {
    char engine[16]; /* that it ran on */
    char cpu[16];    /* the model's name */
    uint32_t n_cpus;
    uint64_t ram_size;
    uint64_t tsc_hz;
    int64_t clock_ns; /* the VM's clock */
    int64_t saved_ns; /* when it was saved, by the host's wall clock since 1970 */
    bool debug_exit;
    struct cpuid_table cpuid;
    uint32_t n_attachments;
    struct machine_state_attachment attachments[MACHINE_STATE_ATTACHMENTS];
};

/* A file that is being loaded. */
struct machine_state_source {
    const char *path; /* the caller's */
    int fd;
    enum x86_cpu_model cpu; /* head.cpu */
    struct state_file_reader reader;
    struct machine_state_head head;
};

/* Opens the file and reads its head. */
int machine_state_open(struct machine_state_source *source, const char *path, struct err *err) MUST_CHECK;
void machine_state_close(struct machine_state_source *source);

/* Where an attachment stood; -ENOENT and one line where the state has none of that kind and id. */
int machine_state_slot(const struct machine_state_source *source, const char *kind, const char *id, unsigned *slot,
                       struct err *err) MUST_CHECK;
bool machine_state_has_kind(const struct machine_state_source *source, const char *kind);

/* Whether all that the state has is attached; -ENOENT and one line. */
int machine_state_check_attached(const struct machine *m, const struct machine_state_source *source,
                                 struct err *err) MUST_CHECK;

/* The rest of the file, into a machine that was opened for it and has not run. On failure the machine is of no more use. */
int machine_state_load(struct machine *m, struct machine_state_source *source, struct err *err) MUST_CHECK;

/*
 * Writes the state of a machine that is paused (machine_pause()) to the descriptor. -errno, -ECANCELED where `stop` wanted that, and one line.
 */
int machine_state_save(struct machine *m, int fd, const struct vm_state_stop *stop, struct err *err) MUST_CHECK;

#endif
