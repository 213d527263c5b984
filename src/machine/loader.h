/*
 * Boots a kernel without firmware: recognises the file by its content, places it, its initrd and its command line in guest RAM, and
 * gives the boot processor the state that the file's boot protocol asks for. Which protocols there are: the table in loader.c; one
 * file each (bzimage.c, pvh.c, multiboot.c).
 *
 * Files are mapped read-only once, at loader_open(), so that a reset boots the same bytes and they cost no memory of vireo's own.
 * Every field of a file is checked against the file's size and the guest's RAM. No threads of its own; no RAM is touched before
 * loader_boot().
 */
#ifndef MACHINE_LOADER_H
#define MACHINE_LOADER_H

#include <stdbool.h>

#include "base/err.h"
#include "core/ram.h"
#include "x86/state.h"

/* Bytes of a file, and what to call it in messages. */
struct loader_file {
    const char *name;
    const uint8_t *data;
    uint64_t size;
    int fd; /* mapped files: still open, to notice changes */
};

struct loader_protocol;

/* What to boot. */
struct loader {
    struct loader_file kernel;
    struct loader_file initrd; /* size 0: none */
    const char *append;        /* never NULL */
    const struct loader_protocol *protocol;
    bool mapped; /* the files are mappings of ours */
};

/* What the board adds. */
struct loader_board {
    struct ram *ram;
    uint64_t acpi_base, acpi_size; /* tables at the top of low RAM: nothing is placed from there on */
    uint64_t rsdp;                 /* guest-physical */
};

/* Maps both files and recognises the kernel. initrd and append may be NULL; names and append are kept, not copied. */
int loader_open(struct loader *loader, const char *kernel, const char *initrd, const char *append,
                struct err *err) MUST_CHECK;

/* The same with files that the caller holds in memory (initrd may be NULL); loader_close() leaves them alone. */
int loader_open_memory(struct loader *loader, const struct loader_file *kernel, const struct loader_file *initrd,
                       const char *append, struct err *err) MUST_CHECK;
void loader_close(struct loader *loader);

/* Whether loader_boot() would succeed on this board; touches no RAM. -EINVAL: a file's fault; -ENOSPC: it does not fit. */
int loader_check(const struct loader *loader, const struct loader_board *board, struct err *err) MUST_CHECK;

/* Loads, and changes *st from the reset state to the entry state; errors as loader_check(), or -ESTALE: a file has changed. */
int loader_boot(const struct loader *loader, const struct loader_board *board, struct x86_state *st,
                struct err *err) MUST_CHECK;

#endif
