/*
 * The kernel loaders. First byte: bit 0: the last quarter of the input is an initrd, bit 1: a long command line, bits 2 and 3: how much
 * RAM. The rest is the kernel's file.
 */
#include <errno.h>
#include <stdlib.h>

#include "fuzz.h"
#include "machine/loader.h"
#include "machine/memmap.h"

static const uint64_t sizes[] = {4 * MIB, 16 * MIB, 64 * MIB, 5 * GIB};
static struct ram rams[ARRAY_SIZE(sizes)];
static char long_line[3000];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        if (ram_open(&rams[i], sizes[i], MEMMAP_LOW_MAX, NULL))
            abort();
    memset(long_line, 'x', sizeof(long_line) - 1);
    return 0;
}

static void boot(const struct loader *loader, struct ram *ram)
{
    const struct loader_board board = {
        .ram = ram, .acpi_base = ram->low - MEMMAP_ACPI_SIZE, .acpi_size = MEMMAP_ACPI_SIZE, .rsdp = MEMMAP_BIOS};
    struct err err = {0};
    struct x86_state st;

    x86_state_reset(&st, true);
    int check = loader_check(loader, &board, &err);
    if (check && (!err.msg[0] || strchr(err.msg, '\n')))
        abort(); /* one line that says why */
    int r = loader_boot(loader, &board, &st, &err);
    if ((check == 0) != (r == 0))
        abort(); /* the check promises what happens */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loader loader;
    struct err err = {0};

    if (size < 1)
        return 0;
    unsigned how = data[0];
    size_t tail = how & 1 ? (size - 1) / 4 : 0;
    const struct loader_file kernel = {.name = "kernel", .data = data + 1, .size = size - 1 - tail, .fd = -1};
    const struct loader_file initrd = {.name = "initrd", .data = data + size - tail, .size = tail, .fd = -1};
    struct ram *ram = &rams[how >> 2 & 3];

    if (loader_open_memory(&loader, &kernel, tail ? &initrd : NULL, how & 2 ? long_line : "quiet", &err)) {
        if (!err.msg[0])
            abort();
        return 0;
    }
    boot(&loader, ram);
    loader_close(&loader);
    if (ram_discard_all(ram))
        abort();
    return 0;
}
