/*
 * The PVH boot protocol (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h): an ELF64 file with a note that names a
 * 32-bit physical entry point; EBX points at a structure with memory map, modules, command line and RSDP.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#include "machine/loader_plan.h"

#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define START_MAGIC       0x336ec578
#define START_VERSION     1

/* struct hvm_start_info and what it points at, all in the page at LOADER_INFO. */
enum {
    START_OFF = 0,
    START_SIZE = 56,
    MODULE_OFF = 0x40,
    MODULE_SIZE = 32,
    MEMMAP_OFF = 0x80,
    MEMMAP_ENTRY_SIZE = 24,
    INFO_SIZE = MEMMAP_OFF + MEMMAP_MAX_RANGES * MEMMAP_ENTRY_SIZE,
};

static bool is_elf64(const struct loader_file *k, Elf64_Ehdr *eh)
{
    if (k->size < sizeof(*eh))
        return false;
    memcpy(eh, k->data, sizeof(*eh));
    return memcmp(eh->e_ident, ELFMAG, SELFMAG) == 0 && eh->e_ident[EI_CLASS] == ELFCLASS64 &&
           eh->e_ident[EI_DATA] == ELFDATA2LSB && eh->e_machine == EM_X86_64;
}

static bool get_phdr(const struct loader_file *k, const Elf64_Ehdr *eh, unsigned i, Elf64_Phdr *ph)
{
    uint64_t at = (uint64_t)i * sizeof(*ph);

    if (eh->e_phentsize != sizeof(*ph) || eh->e_phoff > k->size || at + sizeof(*ph) > k->size - eh->e_phoff)
        return false;
    memcpy(ph, k->data + eh->e_phoff + at, sizeof(*ph));
    return true;
}

/* The entry point in a PT_NOTE segment. Notes are aligned to 4 bytes whatever p_align says, in every kernel's build. */
static bool find_entry(const struct loader_file *k, const Elf64_Phdr *ph, uint64_t *entry)
{
    if (ph->p_offset > k->size || ph->p_filesz > k->size - ph->p_offset)
        return false;
    const uint8_t *p = k->data + ph->p_offset;
    uint64_t left = ph->p_filesz;

    while (left >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr nh;
        memcpy(&nh, p, sizeof(nh));
        uint64_t desc = sizeof(nh) + align_up(nh.n_namesz, 4), next = desc + align_up(nh.n_descsz, 4);
        if (next > left)
            return false;
        if (nh.n_type == NOTE_PHYS32_ENTRY && nh.n_namesz == 4 && memcmp(p + sizeof(nh), "Xen", 4) == 0 &&
            (nh.n_descsz == 4 || nh.n_descsz == 8)) {
            *entry = nh.n_descsz == 4 ? load_le32(p + desc) : load_le64(p + desc);
            return true;
        }
        p += next;
        left -= next;
    }
    return false;
}

static bool find_note(const struct loader_file *k, uint64_t *entry)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph;

    if (!is_elf64(k, &eh))
        return false;
    for (unsigned i = 0; i < eh.e_phnum && get_phdr(k, &eh, i, &ph); i++)
        if (ph.p_type == PT_NOTE && find_entry(k, &ph, entry))
            return true;
    return false;
}

static bool match(const struct loader_file *k)
{
    uint64_t entry;

    return find_note(k, &entry);
}

static int plan_pvh(const struct loader *loader, const struct loader_board *board, struct loader_plan *plan,
                    struct err *err)
{
    const struct loader_file *k = &loader->kernel;
    Elf64_Ehdr eh;
    Elf64_Phdr ph;

    if (!is_elf64(k, &eh) || !find_note(k, &plan->entry))
        return err_set(err, -EINVAL, "kernel %s: no PVH note", k->name);
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        if (!get_phdr(k, &eh, i, &ph))
            return err_set(err, -EINVAL,
                           "kernel %s: truncated: %" PRIu64 " bytes, but %u program headers at offset %#" PRIx64,
                           k->name, k->size, eh.e_phnum, (uint64_t)eh.e_phoff);
        if (ph.p_type != PT_LOAD || !ph.p_memsz)
            continue;
        int r = loader_add_piece(loader, board, plan, ph.p_offset, ph.p_filesz, ph.p_paddr, ph.p_memsz, err);
        if (r < 0)
            return r;
    }
    return loader_check_entry(loader, plan, err);
}

static int enter(const struct loader *loader, const struct loader_board *board, const struct loader_plan *plan,
                 struct x86_state *st)
{
    uint8_t info[INFO_SIZE] = {0};
    struct memmap_range map[MEMMAP_MAX_RANGES];
    unsigned n = memmap_e820(board->ram, board->acpi_base, board->acpi_size, map);

    store_le32(info, START_MAGIC);
    store_le32(info + 4, START_VERSION);
    if (loader->initrd.size) {
        store_le32(info + 12, 1); /* modules */
        store_le64(info + 16, LOADER_INFO + MODULE_OFF);
        store_le64(info + MODULE_OFF, plan->initrd);
        store_le64(info + MODULE_OFF + 8, loader->initrd.size);
    }
    store_le64(info + 24, LOADER_CMDLINE);
    store_le64(info + 32, board->rsdp);
    store_le64(info + 40, LOADER_INFO + MEMMAP_OFF);
    store_le32(info + 48, n);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = info + MEMMAP_OFF + i * MEMMAP_ENTRY_SIZE;
        store_le64(e, map[i].base);
        store_le64(e + 8, map[i].size);
        store_le32(e + 16, map[i].type);
    }
    int r = ram_write(board->ram, LOADER_INFO, info, sizeof(info));
    if (r < 0)
        return r;
    st->gpr[X86_RBX] = LOADER_INFO;
    return loader_enter_protected(board, plan, st);
}

const struct loader_protocol pvh_protocol = {.name = "PVH", .match = match, .plan = plan_pvh, .enter = enter};
