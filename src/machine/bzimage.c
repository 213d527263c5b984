/*
 * Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst and zero-page.rst): bzImage of version 2.12 or later, loaded at its
 * preferred address and entered at offset 0x200 of its protected-mode part with paging on and RSI at the zero page.
 */
#include <errno.h>
#include <inttypes.h>

#include "machine/loader_plan.h"

/* The setup header in the file and, at the same offsets, in the zero page. */
enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_START = HDR_SETUP_SECTS,
    HDR_SYSSIZE = 0x1f4,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_OFFSET = 0x201, /* the header ends so many bytes behind 0x202 */
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_KERNEL_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_MIN_SIZE = 0x264, /* of a file that has all of the above */
    HDR_END_MAX = 0x290,
};

/* Zero page fields outside the header. */
enum { ZP_ACPI_RSDP_ADDR = 0x070, ZP_E820_ENTRIES = 0x1e8, ZP_E820_TABLE = 0x2d0, ZP_E820_ENTRY_SIZE = 20 };

#define SECTOR           512
#define PARAGRAPH        16
#define MIN_VERSION      0x020c
#define LOADED_HIGH      0x01
#define XLF_KERNEL_64    0x01
#define LOADER_UNDEFINED 0xff
#define ENTRY_64         0x200

static bool match(const struct loader_file *k)
{
    return k->size >= HDR_VERSION && memcmp(k->data + HDR_MAGIC, "HdrS", 4) == 0;
}

static int check_header(const struct loader_file *k, struct err *err)
{
    const uint8_t *h = k->data;

    if (k->size < HDR_MIN_SIZE)
        return err_set(err, -EINVAL, "kernel %s: truncated: %" PRIu64 " bytes, its header alone has %d", k->name,
                       k->size, HDR_MIN_SIZE);
    if (load_le16(h + HDR_BOOT_FLAG) != 0xaa55)
        return err_set(err, -EINVAL, "kernel %s: boot flag %#x; must be 0xaa55", k->name, load_le16(h + HDR_BOOT_FLAG));
    if (load_le16(h + HDR_VERSION) < MIN_VERSION)
        return err_set(err, -EINVAL, "kernel %s: boot protocol %u.%02u; accepted: 2.12 and later", k->name,
                       h[HDR_VERSION + 1], h[HDR_VERSION]);
    if (!(h[HDR_LOADFLAGS] & LOADED_HIGH) || !(load_le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64))
        return err_set(err, -EINVAL,
                       "kernel %s: not an x86-64 bzImage (xloadflags %#x); accepted: kernels with a 64-bit entry",
                       k->name, load_le16(h + HDR_XLOADFLAGS));
    return 0;
}

static int plan_bzimage(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                        struct err *err)
{
    const struct loader_file *k = &loader->kernel;
    const uint8_t *h = k->data;
    int r = check_header(k, err);

    if (r < 0)
        return r;
    uint64_t setup = ((h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4) + UINT64_C(1)) * SECTOR;
    uint64_t size = load_le32(h + HDR_SYSSIZE) * (uint64_t)PARAGRAPH;
    uint64_t init_size = load_le32(h + HDR_INIT_SIZE);
    uint64_t align = load_le32(h + HDR_KERNEL_ALIGNMENT), load = load_le64(h + HDR_PREF_ADDRESS);

    /* The header counts in paragraphs, and the file may end within the last one. */
    if (k->size > setup && size > k->size - setup && size - (k->size - setup) < PARAGRAPH)
        size = k->size - setup;
    if (size <= ENTRY_64)
        return err_set(err, -EINVAL, "kernel %s: its code has %" PRIu64 " bytes; must be more than %d", k->name, size,
                       ENTRY_64);
    if (!align || (align & (align - 1)))
        return err_set(err, -EINVAL, "kernel %s: alignment %#" PRIx64 "; must be a power of two", k->name, align);
    if (load >= 4 * GIB)
        return err_set(err, -EINVAL, "kernel %s: preferred address %#" PRIx64 "; must be below 4 GiB", k->name, load);
    if (h[HDR_RELOCATABLE])
        load = align_up(load, align);
    r = loader_add_piece(loader, board, plan, setup, size, load, size > init_size ? size : init_size, err);
    if (r < 0)
        return r;
    /* What lies behind the image is the kernel's to clear: leave it untouched rather than zeroed. */
    plan->pieces[0].mem_size = size;
    plan->entry = load + ENTRY_64;
    plan->initrd_max = load_le32(h + HDR_INITRD_ADDR_MAX) + UINT64_C(1);
    plan->cmdline_max = load_le32(h + HDR_CMDLINE_SIZE);
    return 0;
}

static int enter(const struct loader *loader, const struct loader_board *board, const struct loader_plan *plan,
                 struct x86_state *st)
{
    const uint8_t *h = loader->kernel.data;
    uint8_t zp[RAM_PAGE_SIZE] = {0};
    struct memmap_range map[MEMMAP_MAX_RANGES];
    uint64_t header_end = HDR_MAGIC + (uint64_t)h[HDR_JUMP_OFFSET];

    if (header_end < HDR_MIN_SIZE)
        header_end = HDR_MIN_SIZE;
    if (header_end > HDR_END_MAX)
        header_end = HDR_END_MAX;
    if (header_end > loader->kernel.size)
        header_end = loader->kernel.size;
    memcpy(zp + HDR_START, h + HDR_START, header_end - HDR_START);

    zp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    store_le32(zp + HDR_CODE32_START, (uint32_t)plan->pieces[0].gpa);
    store_le32(zp + HDR_CMD_LINE_PTR, (uint32_t)LOADER_CMDLINE);
    store_le32(zp + HDR_RAMDISK_IMAGE, (uint32_t)plan->initrd);
    store_le32(zp + HDR_RAMDISK_SIZE, (uint32_t)loader->initrd.size);
    store_le64(zp + ZP_ACPI_RSDP_ADDR, board->rsdp);

    unsigned n = memmap_e820(board->ram, board->acpi_base, board->acpi_size, map);
    zp[ZP_E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = zp + ZP_E820_TABLE + i * ZP_E820_ENTRY_SIZE;
        store_le64(e, map[i].base);
        store_le64(e + 8, map[i].size);
        store_le32(e + 16, map[i].type);
    }
    int r = ram_write(board->ram, LOADER_INFO, zp, sizeof(zp));
    if (r < 0)
        return r;
    st->gpr[X86_RSI] = LOADER_INFO;
    return loader_enter_long(board, plan, st);
}

const struct loader_protocol bzimage_protocol = {
    .name = "Linux bzImage", .match = match, .plan = plan_bzimage, .enter = enter};
