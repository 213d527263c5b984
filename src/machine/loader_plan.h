/*
 * What the boot protocols share, private to the loader: the plan that a protocol makes of a file before any RAM is written, the low
 * memory that it may use at entry, and flat segments.
 */
#ifndef MACHINE_LOADER_PLAN_H
#define MACHINE_LOADER_PLAN_H

#include "machine/loader.h"
#include "machine/memmap.h"

/* Low memory while the kernel starts; free for it afterwards, by every protocol. */
#define LOADER_GDT         UINT64_C(0x1000)
#define LOADER_PAGE_TABLES UINT64_C(0x2000) /* PML4, PDPT, four page directories */
#define LOADER_LOW         UINT64_C(0x2000) /* room for small kernels that enter in protected mode, without page tables */
#define LOADER_LOW_END     UINT64_C(0x10000)
#define LOADER_INFO        UINT64_C(0x10000) /* the protocol's own structures, one page */
#define LOADER_CMDLINE     UINT64_C(0x20000) /* up to MEMMAP_EBDA */
#define LOADER_CMDLINE_MAX (MEMMAP_EBDA - LOADER_CMDLINE - 1)

/* Flat segments of the GDT at LOADER_GDT, as Linux's boot protocol numbers them. */
#define LOADER_CS 0x10
#define LOADER_DS 0x18

#define LOADER_MAX_PIECES 64

/* Copies `size` bytes of the kernel to gpa and zeroes up to mem_size. */
struct loader_piece {
    uint64_t gpa, mem_size;
    const uint8_t *data;
    uint64_t size;
};

struct loader_plan {
    struct loader_piece pieces[LOADER_MAX_PIECES];
    unsigned n_pieces;
    uint64_t entry;       /* guest-physical */
    uint64_t end;         /* first byte behind all that the kernel needs, 1 MiB or above */
    bool low;             /* pieces may lie in LOADER_LOW to LOADER_LOW_END too; the protocol's to set */
    uint64_t initrd_max;  /* the initrd must end at or below; 0: no limit of the protocol's */
    bool name_first;      /* the command line begins with the kernel's file name; the protocol's to set */
    uint64_t cmdline_max; /* characters, without the final NUL; 0: no limit of the protocol's */
    uint64_t initrd;      /* where it goes; loader.c's choice */
};

struct loader_protocol {
    const char *name;
    /* Whether the file is of this kind, from its content alone. */
    bool (*match)(const struct loader_file *kernel);
    int (*plan)(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                struct err *err);
    /* The pieces, initrd and command line are in place: adds the protocol's structures and sets the registers. */
    int (*enter)(const struct loader *loader, const struct loader_board *board, const struct loader_plan *plan,
                 struct x86_state *st);
};

extern const struct loader_protocol bzimage_protocol, pvh_protocol, multiboot_protocol;

/* Adds a piece after checking that the file has its bytes and RAM its room, from 1 MiB to the ACPI tables or where plan->low lets. */
int loader_add_piece(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                     uint64_t offset, uint64_t size, uint64_t gpa, uint64_t mem_size, struct err *err) MUST_CHECK;

/* Whether the entry point lies in what is loaded: 0, or -EINVAL. */
int loader_check_entry(const struct loader *loader, const struct loader_plan *plan, struct err *err) MUST_CHECK;

/* Flat segments, protected mode, no paging (the entry of PVH and multiboot), interrupts off; writes the GDT. */
int loader_enter_protected(const struct loader_board *board, const struct loader_plan *plan,
                           struct x86_state *st) MUST_CHECK;

/* 64-bit mode with the first 4 GiB mapped one to one; writes GDT and page tables. */
int loader_enter_long(const struct loader_board *board, const struct loader_plan *plan,
                      struct x86_state *st) MUST_CHECK;

#endif
