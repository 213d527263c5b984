/*
 * Libraries that few runs need, loaded by those that do: libnbd, libiscsi and libslirp bring thirty others along, which take longer to be loaded than
 * a small guest takes to boot.
 *
 * A file of its own (disk/libraries.c) lists the functions that are called of one, and LIBRARY_STUB() defines each as a jump through a slot;
 * library_load() fills the slots. So callers look as ever, against the library's own header. What a program calls before that is a
 * bug of ours, and a jump to 0.
 *
 * Threads: library_load() by any. The slots are written once, as the dynamic linker's own tables are, before it returns for the first time.
 */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H

#include <pthread.h>
#include <stdbool.h>

#include "base/err.h"

struct library_function {
    const char *name;
    void **slot;
};

struct library {
    const char *file;    /* its soname */
    const char *purpose; /* for people: "disks on NBD servers" */
    const struct library_function *functions;
    size_t n;
    pthread_mutex_t lock;
    bool loaded;
};

/* At file scope. */
#define LIBRARY_STUB(function)                                                  \
    extern void *library_slot_##function __attribute__((visibility("hidden"))); \
    void *library_slot_##function __attribute__((used));                        \
    __asm__(".pushsection .text\n"                                              \
            ".globl " #function "\n"                                            \
            ".hidden " #function "\n"                                           \
            ".type " #function ", @function\n" #function ":\n"                  \
            ".cfi_startproc\n"                                                  \
            "jmp *library_slot_" #function "(%rip)\n"                           \
            ".cfi_endproc\n"                                                    \
            ".size " #function ", . - " #function "\n"                          \
            ".popsection\n");

#define LIBRARY_FUNCTION(function) {#function, &library_slot_##function},

#define LIBRARY(soname, what, list)                                                            \
    {                                                                                          \
        .file = soname, .purpose = what, .functions = list, .n = sizeof(list) / sizeof(*list), \
        .lock = PTHREAD_MUTEX_INITIALIZER,                                                     \
    }

/* -ENOENT, and a message that names the library, where it cannot be loaded or lacks a function. The second time does nothing. */
int library_load(struct library *library, struct err *err) MUST_CHECK;

#endif
