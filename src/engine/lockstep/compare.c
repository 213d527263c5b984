/* The two sides' registers, field by field, and their RAM, as far as the host has backed either. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include "engine/lockstep/lockstep_impl.h"

struct field {
    const char *name;
    uint16_t offset, size;
};

#define FIELD(name, member)                                                               \
    {                                                                                     \
        name, offsetof(struct x86_state, member), sizeof(((struct x86_state *)0)->member) \
    }
#define SEG(name, member)                                                                          \
    FIELD(name, member.sel), FIELD(name ".base", member.base), FIELD(name ".limit", member.limit), \
        FIELD(name ".attr", member.attr)
#define TABLE(name, member) FIELD(name ".base", member.base), FIELD(name ".limit", member.limit)
#define VECTOR(n)           FIELD("ymm" #n, ymm[n])

static const struct field fields[] = {
    FIELD("rip", rip),
    FIELD("rflags", rflags),
    FIELD("rax", gpr[X86_RAX]),
    FIELD("rcx", gpr[X86_RCX]),
    FIELD("rdx", gpr[X86_RDX]),
    FIELD("rbx", gpr[X86_RBX]),
    FIELD("rsp", gpr[X86_RSP]),
    FIELD("rbp", gpr[X86_RBP]),
    FIELD("rsi", gpr[X86_RSI]),
    FIELD("rdi", gpr[X86_RDI]),
    FIELD("r8", gpr[X86_R8]),
    FIELD("r9", gpr[X86_R9]),
    FIELD("r10", gpr[X86_R10]),
    FIELD("r11", gpr[X86_R11]),
    FIELD("r12", gpr[X86_R12]),
    FIELD("r13", gpr[X86_R13]),
    FIELD("r14", gpr[X86_R14]),
    FIELD("r15", gpr[X86_R15]),
    SEG("es", seg[X86_ES]),
    SEG("cs", seg[X86_CS]),
    SEG("ss", seg[X86_SS]),
    SEG("ds", seg[X86_DS]),
    SEG("fs", seg[X86_FS]),
    SEG("gs", seg[X86_GS]),
    SEG("ldtr", ldtr),
    SEG("tr", tr),
    TABLE("gdtr", gdtr),
    TABLE("idtr", idtr),
    FIELD("cr0", cr0),
    FIELD("cr2", cr2),
    FIELD("cr3", cr3),
    FIELD("cr4", cr4),
    FIELD("xcr0", xcr0),
    FIELD("pdpte", pdpte),
    FIELD("dr0", dr[0]),
    FIELD("dr1", dr[1]),
    FIELD("dr2", dr[2]),
    FIELD("dr3", dr[3]),
    FIELD("dr6", dr6),
    FIELD("dr7", dr7),
    FIELD("pending debug exceptions", pending_debug),
    FIELD("efer", efer),
    FIELD("star", star),
    FIELD("lstar", lstar),
    FIELD("cstar", cstar),
    FIELD("sfmask", sfmask),
    FIELD("kernel_gs_base", kernel_gs_base),
    FIELD("sysenter_cs", sysenter_cs),
    FIELD("sysenter_esp", sysenter_esp),
    FIELD("sysenter_eip", sysenter_eip),
    FIELD("pat", pat),
    FIELD("tsc_aux", tsc_aux),
    FIELD("tsc_adjust", tsc_adjust),
    FIELD("misc_enable", misc_enable),
    FIELD("spec_ctrl", spec_ctrl),
    FIELD("mtrr_def_type", mtrr_def_type),
    FIELD("mtrr_fixed", mtrr_fixed),
    FIELD("mtrr_var", mtrr_var),
    FIELD("mcg_status", mcg_status),
    FIELD("kvm_system_time", kvm_system_time),
    FIELD("kvm_wall_clock", kvm_wall_clock),
    FIELD("fcw", fx.fcw),
    FIELD("fsw", fx.fsw),
    FIELD("ftw", fx.ftw),
    FIELD("fop", fx.fop),
    FIELD("fip", fx.fip),
    FIELD("fdp", fx.fdp),
    FIELD("mxcsr", fx.mxcsr),
    FIELD("st0", fx.st[0]),
    FIELD("st1", fx.st[1]),
    FIELD("st2", fx.st[2]),
    FIELD("st3", fx.st[3]),
    FIELD("st4", fx.st[4]),
    FIELD("st5", fx.st[5]),
    FIELD("st6", fx.st[6]),
    FIELD("st7", fx.st[7]),
    VECTOR(0),
    VECTOR(1),
    VECTOR(2),
    VECTOR(3),
    VECTOR(4),
    VECTOR(5),
    VECTOR(6),
    VECTOR(7),
    VECTOR(8),
    VECTOR(9),
    VECTOR(10),
    VECTOR(11),
    VECTOR(12),
    VECTOR(13),
    VECTOR(14),
    VECTOR(15),
    FIELD("activity", activity),
    FIELD("shadow of STI", sti_shadow),
    FIELD("shadow of MOV SS", movss_shadow),
    FIELD("NMIs blocked", nmi_blocked),
};

static bool field_same(const struct x86_state *a, const struct x86_state *b, const struct field *f)
{
    return memcmp((const char *)a + f->offset, (const char *)b + f->offset, f->size) == 0;
}

bool compare_same(const struct x86_state *a, const struct x86_state *b)
{
    if (memcmp(a, b, sizeof(*a)) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (!field_same(a, b, &fields[i]))
            return false;
    return true;
}

/* As a number, highest byte first. */
static void print_field(const struct x86_state *st, const struct field *f, char *buf, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)st + f->offset;

    *buf = '\0';
    for (size_t i = 0; i < f->size && 2 * i + 3 <= len; i++)
        snprintf(buf + 2 * i, len - 2 * i, "%02x", bytes[f->size - 1 - i]);
}

void compare_each(const struct x86_state *a, const struct x86_state *b,
                  void (*fn)(void *opaque, const char *name, const char *first, const char *second), void *opaque)
{
    char first[2 * sizeof(a->mtrr_var) + 1], second[sizeof(first)];

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (field_same(a, b, &fields[i]))
            continue;
        print_field(a, &fields[i], first, sizeof(first));
        print_field(b, &fields[i], second, sizeof(second));
        fn(opaque, fields[i].name, first, second);
    }
}

/* ---- RAM ---- */

/* The next stretch of backed pages from `*at` on: its beginning, and its end in `*at`. false: no more. */
static bool next_extent(const struct ram *ram, uint64_t *from, uint64_t *at)
{
    off_t data = lseek(ram->fd, (off_t)*at, SEEK_DATA);

    if (data < 0)
        return false;
    off_t hole = lseek(ram->fd, data, SEEK_HOLE);
    *from = (uint64_t)data;
    *at = hole < 0 ? ram->size : (uint64_t)hole;
    return true;
}

void compare_copy_ram(struct ram *to, const struct ram *from)
{
    uint64_t start, at = 0;

    if (ram_discard_all(to) < 0)
        return; /* its own sizes: cannot fail */
    while (next_extent(from, &start, &at)) {
        memcpy(to->base + start, from->base + start, at - start);
        ram_wrote(to, to->base + start, at - start);
    }
}

/* In what one of them has backed. */
static uint64_t compare_extents(const struct ram *backed, const struct ram *other)
{
    uint64_t start, at = 0;

    while (next_extent(backed, &start, &at)) {
        if (memcmp(backed->base + start, other->base + start, at - start) == 0)
            continue;
        while (memcmp(backed->base + start, other->base + start, 8) == 0)
            start += 8;
        return start;
    }
    return UINT64_MAX;
}

uint64_t compare_ram(const struct ram *a, const struct ram *b)
{
    uint64_t at = compare_extents(a, b);
    uint64_t other = compare_extents(b, a);
    return at < other ? at : other;
}
