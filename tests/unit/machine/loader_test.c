#include <elf.h>
#include <errno.h>

#include "../unit.h"
#include "machine/loader.h"
#include "machine/memmap.h"

#define RAM_BYTES (64 * MIB)
#define ACPI_BASE (RAM_BYTES - 64 * KIB)
#define IMAGE     8192

struct bench {
    struct ram ram;
    struct loader_board board;
    uint8_t image[IMAGE];
    struct loader_file kernel;
    struct loader loader;
    struct x86_state st;
    struct err err;
};

static int setup(void **state)
{
    static struct bench b;
    memset(&b, 0, sizeof(b));
    if (ram_open(&b.ram, RAM_BYTES, MEMMAP_LOW_MAX, &b.err) < 0)
        return -1;
    b.board = (struct loader_board){.ram = &b.ram, .acpi_base = ACPI_BASE, .acpi_size = 64 * KIB, .rsdp = 0xe0000};
    b.kernel = (struct loader_file){.name = "K", .data = b.image, .size = IMAGE};
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    loader_close(&b->loader);
    ram_close(&b->ram);
    return 0;
}

static int boot(struct bench *b, const struct loader_file *initrd, const char *append)
{
    int r = loader_open_memory(&b->loader, &b->kernel, initrd, append, &b->err);
    if (r == 0)
        r = loader_check(&b->loader, &b->board, &b->err);
    return r < 0 ? r : loader_boot(&b->loader, &b->board, &b->st, &b->err);
}

static void assert_refused(struct bench *b, int error, const char *why)
{
    struct x86_state none = {0};
    assert_int_equal(boot(b, NULL, NULL), error);
    if (!strstr(b->err.msg, why) || !strstr(b->err.msg, "K"))
        fail_msg("\"%s\" does not say \"%s\"", b->err.msg, why);
    assert_memory_equal(&b->st, &none, sizeof(none));
}

static uint32_t guest32(struct bench *b, uint64_t gpa)
{
    uint32_t v = 0;
    assert_int_equal(ram_read(&b->ram, gpa, &v, 4), 0);
    return v;
}

/* A bzImage of one setup sector and seven kilobytes of code, each byte of which is its offset. */
static void make_bzimage(struct bench *b)
{
    uint8_t *h = b->image;
    for (unsigned i = 0; i < IMAGE; i++)
        h[i] = i < 1024 ? 0 : (uint8_t)((i - 1024) * 7);
    h[0x1f1] = 1;
    store_le32(h + 0x1f4, (IMAGE - 1024) / 16);
    store_le16(h + 0x1fe, 0xaa55);
    h[0x201] = 0x66;
    memcpy(h + 0x202, "HdrS", 4);
    store_le16(h + 0x206, 0x020f);
    h[0x211] = 1;
    store_le32(h + 0x22c, 0x7fffffff);
    store_le32(h + 0x230, 0x200000);
    h[0x234] = 1;
    store_le16(h + 0x236, 1);
    store_le32(h + 0x238, 100);
    store_le64(h + 0x258, 0x1000000);
    store_le32(h + 0x260, 0x800000);
}

static void test_bzimage(void **state)
{
    struct bench *b = *state;
    const struct loader_file initrd = {.name = "I", .data = (const uint8_t *)"cpio", .size = 4};
    make_bzimage(b);
    assert_int_equal(boot(b, &initrd, "quiet"), 0);

    uint64_t zp = b->st.gpr[X86_RSI];
    assert_int_equal(b->st.rip, 0x1000200);
    assert_true(x86_code64(&b->st));
    assert_int_equal(b->st.seg[X86_CS].sel, 0x10);
    assert_int_equal(b->st.seg[X86_SS].sel, 0x18);
    assert_false(b->st.rflags & X86_FLAG_IF);
    assert_int_equal(guest32(b, 0x1000000 + 4), 7 * 4 | (7 * 5) << 8 | (7 * 6) << 16 | (7 * 7) << 24);
    assert_int_equal(guest32(b, zp + 0x202), 0x53726448);
    assert_int_equal(guest32(b, zp + 0x218), ACPI_BASE - 4096);
    assert_int_equal(guest32(b, zp + 0x21c), 4);
    assert_int_equal(guest32(b, ACPI_BASE - 4096), 0x6f697063);
    assert_int_equal(guest32(b, zp + 0x070), 0xe0000);
    char cmdline[6];
    assert_int_equal(ram_read(&b->ram, guest32(b, zp + 0x228), cmdline, 6), 0);
    assert_string_equal(cmdline, "quiet");

    /* The memory map: RAM, then ours, and all RAM below the tables. */
    uint64_t n = guest32(b, zp + 0x1e8) & 0xff;
    assert_in_range(n, 5, MEMMAP_MAX_RANGES);
    assert_int_equal(guest32(b, zp + 0x2d0 + 3 * 20), MEMMAP_HIGH);
    assert_int_equal(guest32(b, zp + 0x2d0 + 3 * 20 + 8), ACPI_BASE - MEMMAP_HIGH);

    /* Identity mapping of 4 GiB: its last 2 MiB page. */
    assert_int_equal(guest32(b, b->st.cr3) & ~0xfffu, b->st.cr3 + 0x1000);
    assert_int_equal(guest32(b, b->st.cr3 + 0x2000 + 2047 * 8) & ~0xfffu, 0xffe00000);
}

/* Xen's first code places its trampoline below what the BIOS data area calls the end of conventional memory. */
static void test_bios_data(void **state)
{
    struct bench *b = *state;
    make_bzimage(b);
    assert_int_equal(boot(b, NULL, ""), 0);
    assert_int_equal(guest32(b, 0x400) & 0xffff, 0x3f8);
    assert_int_equal((guest32(b, 0x40e) & 0xffff) << 4, MEMMAP_EBDA);
    assert_int_equal(guest32(b, 0x413) & 0xffff, 639);
    assert_int_equal(guest32(b, MEMMAP_EBDA), 1);
}

/* The header counts paragraphs of 16 bytes; the last one may be short. */
static void test_bzimage_short_paragraph(void **state)
{
    struct bench *b = *state;
    make_bzimage(b);
    b->kernel.size = IMAGE - 15;
    assert_int_equal(boot(b, NULL, ""), 0);
    assert_int_equal(guest32(b, 0x1000000 + IMAGE - 1024 - 16), (uint8_t)((IMAGE - 1024 - 16) * 7));
}

static void test_bzimage_refusals(void **state)
{
    struct bench *b = *state;
    make_bzimage(b);
    b->kernel.size = 0x210;
    assert_refused(b, -EINVAL, "truncated");
    b->kernel.size = IMAGE - 16;
    assert_refused(b, -EINVAL, "truncated: 8176 bytes");
    b->kernel.size = IMAGE;
    store_le16(b->image + 0x206, 0x020b);
    assert_refused(b, -EINVAL, "boot protocol 2.11");
    make_bzimage(b);
    store_le16(b->image + 0x236, 0);
    assert_refused(b, -EINVAL, "64-bit");
    make_bzimage(b);
    store_le32(b->image + 0x230, 3);
    assert_refused(b, -EINVAL, "power of two");
    make_bzimage(b);
    store_le64(b->image + 0x258, UINT64_MAX - 5);
    assert_refused(b, -EINVAL, "preferred address");
    make_bzimage(b);
    store_le64(b->image + 0x258, 0x1000);
    b->image[0x234] = 0;
    assert_refused(b, -EINVAL, "1 MiB");
    make_bzimage(b);
    store_le32(b->image + 0x260, 0xffffffff);
    assert_refused(b, -ENOSPC, "memory");
    make_bzimage(b);
    store_le32(b->image + 0x1f4, 0xffffffff);
    assert_refused(b, -EINVAL, "truncated");
}

static void test_limits_of_what_goes_with_it(void **state)
{
    struct bench *b = *state;
    char line[102];
    make_bzimage(b);
    memset(line, 'x', sizeof(line));
    line[101] = 0;
    assert_int_equal(boot(b, NULL, line), -EINVAL);
    assert_non_null(strstr(b->err.msg, "up to 100"));
    line[100] = 0;
    assert_int_equal(boot(b, NULL, line), 0);

    const struct loader_file big = {.name = "I", .data = b->image, .size = 40 * MIB};
    assert_int_equal(boot(b, &big, NULL), -ENOSPC);
    assert_non_null(strstr(b->err.msg, "initrd I: 40960 KiB"));

    const struct loader_file initrd = {.name = "I", .data = b->image, .size = 4096};
    store_le32(b->image + 0x22c, 0x1ffffff);
    assert_int_equal(boot(b, &initrd, NULL), 0);
    assert_int_equal(guest32(b, b->st.gpr[X86_RSI] + 0x218), 0x2000000 - 4096);
}

/* An ELF64 with a note segment and one load segment at 2 MiB: 16 bytes of file, 64 KiB of memory. */
static void make_pvh(struct bench *b)
{
    const Elf64_Phdr ph[2] = {
        {.p_type = PT_NOTE, .p_offset = 0x200, .p_filesz = 20 + 24},
        {.p_type = PT_LOAD, .p_offset = 0x400, .p_paddr = 0x200000, .p_filesz = 16, .p_memsz = 0x10000},
    };
    Elf64_Ehdr eh = {.e_machine = EM_X86_64, .e_phoff = 64, .e_phnum = 2, .e_phentsize = sizeof(ph[0])};
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = ELFCLASS64;
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memset(b->image, 0, IMAGE);
    memcpy(b->image, &eh, sizeof(eh));
    memcpy(b->image + 64, ph, sizeof(ph));
    uint8_t *n = b->image + 0x200;
    const Elf64_Nhdr other = {.n_namesz = 4, .n_descsz = 3, .n_type = 1},
                     entry = {.n_namesz = 4, .n_descsz = 8, .n_type = 18};
    memcpy(n, &other, 12);
    memcpy(n + 12, "Xen", 4);
    memcpy(n + 20, &entry, 12);
    memcpy(n + 32, "Xen", 4);
    store_le64(n + 36, 0x200008);
    memcpy(b->image + 0x400, "0123456789abcdef", 16);
}

static void test_pvh(void **state)
{
    struct bench *b = *state;
    const struct loader_file initrd = {.name = "I", .data = (const uint8_t *)"cpio", .size = 4};
    uint64_t junk = UINT64_MAX;
    make_pvh(b);
    assert_int_equal(ram_write(&b->ram, 0x20f000, &junk, 8), 0);
    assert_int_equal(boot(b, &initrd, "x"), 0);
    assert_int_equal(b->st.rip, 0x200008);
    assert_int_equal(b->st.cr0 & (X86_CR0_PE | X86_CR0_PG), X86_CR0_PE);
    assert_true(b->st.seg[X86_CS].attr & X86_SEG_DB);
    assert_int_equal(guest32(b, 0x200000), 0x33323130);
    assert_int_equal(guest32(b, 0x20f000), 0); /* bss */

    uint64_t info = b->st.gpr[X86_RBX];
    assert_int_equal(guest32(b, info), 0x336ec578);
    assert_int_equal(guest32(b, info + 4), 1);
    assert_int_equal(guest32(b, info + 12), 1);
    assert_int_equal(guest32(b, guest32(b, info + 16)), ACPI_BASE - 4096);
    assert_int_equal(guest32(b, guest32(b, info + 24)), 'x');
    assert_int_equal(guest32(b, info + 32), 0xe0000);
    assert_int_equal(guest32(b, guest32(b, info + 40) + 8), MEMMAP_EBDA);
}

static void test_pvh_refusals(void **state)
{
    struct bench *b = *state;
    make_pvh(b);
    store_le64(b->image + 64 + 56 + 24, 0x3ffff00); /* p_paddr */
    assert_refused(b, -ENOSPC, "memory");
    make_pvh(b);
    store_le64(b->image + 64 + 56 + 24, UINT64_MAX - 0x1000);
    assert_refused(b, -ENOSPC, "memory");
    make_pvh(b);
    store_le64(b->image + 64 + 56 + 8, IMAGE - 8); /* p_offset */
    assert_refused(b, -EINVAL, "truncated");
    make_pvh(b);
    store_le64(b->image + 64 + 56 + 32, UINT64_MAX); /* p_filesz */
    assert_refused(b, -EINVAL, "truncated");
    make_pvh(b);
    store_le64(b->image + 0x200 + 36, 0x210000); /* entry */
    assert_refused(b, -EINVAL, "entry point 0x210000");
    make_pvh(b);
    store_le16(b->image + offsetof(Elf64_Ehdr, e_phnum), 0xffff);
    assert_refused(b, -EINVAL, "");
    make_pvh(b);
    store_le32(b->image + 0x200, UINT32_MAX); /* n_namesz */
    assert_refused(b, -EINVAL, "without a PVH note");
}

static void make_multiboot(struct bench *b, uint32_t flags, uint32_t load, uint32_t load_end, uint32_t bss_end,
                           uint32_t entry)
{
    uint8_t *h = b->image + 0x40;
    memset(b->image, 0, IMAGE);
    store_le32(h, 0x1badb002);
    store_le32(h + 4, flags);
    store_le32(h + 8, 0u - 0x1badb002u - flags);
    store_le32(h + 12, load + 0x40);
    store_le32(h + 16, load);
    store_le32(h + 20, load_end);
    store_le32(h + 24, bss_end);
    store_le32(h + 28, entry);
    memcpy(b->image + 0x1000, "code", 4);
}

static void test_multiboot_kludge(void **state)
{
    struct bench *b = *state;
    const struct loader_file initrd = {.name = "I", .data = (const uint8_t *)"mod!", .size = 4};
    make_multiboot(b, 0x10003, 0x100000, 0, 0x110000, 0x101000);
    assert_int_equal(boot(b, &initrd, "arg"), 0);
    assert_int_equal(b->st.gpr[X86_RAX], 0x2badb002);
    assert_int_equal(b->st.rip, 0x101000);
    assert_int_equal(guest32(b, 0x101000), 0x65646f63);
    uint64_t info = b->st.gpr[X86_RBX];
    assert_int_equal(guest32(b, info), 0x24d);
    assert_int_equal(guest32(b, info + 8), (ACPI_BASE - MEMMAP_HIGH) / 1024);
    char cmdline[6];
    assert_int_equal(ram_read(&b->ram, guest32(b, info + 16), cmdline, sizeof(cmdline)), 0);
    assert_string_equal(cmdline, "K arg"); /* the kernel's name first: it skips a word */
    assert_int_equal(guest32(b, info + 20), 1);
    assert_int_equal(guest32(b, guest32(b, guest32(b, info + 24))), 0x21646f6d);
    uint32_t mmap = guest32(b, info + 48);
    assert_int_equal(guest32(b, mmap), 20);
    assert_int_equal(guest32(b, mmap + 12), MEMMAP_EBDA);
}

static void test_multiboot_elf(void **state)
{
    struct bench *b = *state;
    make_multiboot(b, 0x3, 0, 0, 0, 0);
    /* Linked at 3 GiB and loaded at 1 MiB, behind the headers, which end before the multiboot header. */
    const Elf32_Phdr ph = {.p_type = PT_LOAD,
                           .p_offset = 0x1000,
                           .p_vaddr = 0xc0100000,
                           .p_paddr = 0x100000,
                           .p_filesz = 4,
                           .p_memsz = 0x1000};
    Elf32_Ehdr eh = {
        .e_machine = EM_386, .e_entry = 0xc0100002, .e_phoff = 0x100, .e_phnum = 1, .e_phentsize = sizeof(ph)};
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = ELFCLASS32;
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(b->image, &eh, sizeof(eh));
    memcpy(b->image + 0x100, &ph, sizeof(ph));
    assert_int_equal(boot(b, NULL, NULL), 0);
    assert_int_equal(b->st.rip, 0x100002);
    assert_int_equal(guest32(b, 0x100000), 0x65646f63);
    store_le32(b->image + offsetof(Elf32_Ehdr, e_phoff), UINT32_MAX);
    memset(&b->st, 0, sizeof(b->st));
    assert_refused(b, -EINVAL, "program headers");
}

/* Small ones may lie in low memory, clear of what the loader puts there. */
static void test_multiboot_low(void **state)
{
    struct bench *b = *state;
    make_multiboot(b, 0x10003, 0x8000, 0, 0, 0x9000);
    assert_int_equal(boot(b, NULL, NULL), 0);
    assert_int_equal(b->st.rip, 0x9000);
    assert_int_equal(guest32(b, 0x9000), 0x65646f63);
    make_multiboot(b, 0x10003, 0x8000, 0, 0x10001, 0x9000);
    memset(&b->st, 0, sizeof(b->st));
    assert_refused(b, -EINVAL, "within 0x2000 to 0x10000");
    make_multiboot(b, 0x10003, 0x1000, 0, 0, 0x2000);
    assert_refused(b, -EINVAL, "within 0x2000 to 0x10000");
    make_pvh(b); /* not for those that get page tables or structures of another kind there */
    store_le64(b->image + 64 + 56 + 24, 0x8000);
    assert_refused(b, -EINVAL, "1 MiB or above");
}

static void test_multiboot_refusals(void **state)
{
    struct bench *b = *state;
    make_multiboot(b, 0x10013, 0x100000, 0, 0, 0x101000);
    assert_refused(b, -EINVAL, "flags");
    make_multiboot(b, 0x10003, 0x100000, 0x200000, 0, 0x101000);
    assert_refused(b, -EINVAL, "truncated");
    make_multiboot(b, 0x10003, 0x100000, 0x80000, 0, 0x101000);
    assert_refused(b, -EINVAL, "load end");
    make_multiboot(b, 0x10003, 0x100000, 0, 0xffffffff, 0x101000);
    assert_refused(b, -ENOSPC, "memory");
    make_multiboot(b, 0x10003, 0x100000, 0, 0, 0x10);
    assert_refused(b, -EINVAL, "entry point");
    make_multiboot(b, 0x10003, 0x100000, 0, 0, 0x101000);
    store_le32(b->image + 0x40 + 12, 0x90000);
    assert_refused(b, -EINVAL, "load address");
    make_multiboot(b, 0x3, 0, 0, 0, 0);
    assert_refused(b, -EINVAL, "not ELF32");
}

static void test_foreign_files(void **state)
{
    struct bench *b = *state;
    memset(b->image, 'x', IMAGE);
    assert_refused(b, -EINVAL, "accepted: a bzImage");
    b->kernel.size = 1;
    assert_refused(b, -EINVAL, "1 bytes");
    memcpy(b->image, "\x1f\x8b", 2);
    b->kernel.size = 2;
    assert_refused(b, -EINVAL, "gzip");
    assert_int_equal(loader_open(&b->loader, "/nonexistent/K", NULL, NULL, &b->err), -ENOENT);
    assert_int_equal(loader_open(&b->loader, "/dev/null", NULL, NULL, &b->err), -EINVAL);
    assert_non_null(strstr(b->err.msg, "/dev/null: not a regular file"));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_bzimage),
        T(test_bzimage_short_paragraph),
        T(test_bios_data),
        T(test_bzimage_refusals),
        T(test_limits_of_what_goes_with_it),
        T(test_pvh),
        T(test_pvh_refusals),
        T(test_multiboot_kludge),
        T(test_multiboot_elf),
        T(test_multiboot_low),
        T(test_multiboot_refusals),
        T(test_foreign_files),
    };
    return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
