#include "vm/cpuid_table.h"

#include <errno.h>

#include "vm/vm.h"

#define PHYS_BITS_LEAST 32
#define PHYS_BITS_MOST  52

enum { EAX, EBX, ECX, EDX };

/* Bits that follow the CPU's registers are no features: OSXSAVE, and the local APIC's enable bit. */
static const struct {
    uint32_t leaf, subleaf;
    unsigned reg;
    uint32_t mirrors;
} words[CPUID_TABLE_WORDS] = {
    {1, 0, ECX, 1u << 27}, {1, 0, EDX, 1u << 9}, {7, 0, EBX, 0},          {7, 0, ECX, 0},          {7, 0, EDX, 0},
    {7, 2, EDX, 0},        {0xd, 1, EAX, 0},     {0x80000001, 0, ECX, 0}, {0x80000001, 0, EDX, 0},
};

static struct x86_cpuid_regs shown(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf)
{
    const struct engine_type *engine = vcpu->vm->conf.engine;
    /* 64-bit code, since that is where SYSCALL's bit shows. */
    struct x86_state st = {.efer = X86_EFER_LMA, .xcr0 = X86_XCR0_X87};

    st.seg[X86_CS].attr = X86_SEG_L;
    struct x86_cpuid_regs r = x86_cpuid(&vcpu->cpuid, &st, true, leaf, subleaf);
    if (engine->cpuid)
        engine->cpuid(vcpu->engine_vcpu, leaf, subleaf, &r);
    return r;
}

void cpuid_table_get(struct vcpu *vcpu, struct cpuid_table *table)
{
    for (size_t i = 0; i < CPUID_TABLE_WORDS; i++) {
        const struct x86_cpuid_regs r = shown(vcpu, words[i].leaf, words[i].subleaf);
        const uint32_t regs[] = {r.eax, r.ebx, r.ecx, r.edx};
        table->words[i] = regs[words[i].reg] & ~words[i].mirrors;
    }
    table->phys_bits = shown(vcpu, 0x80000008, 0).eax & 0xff;
}

void cpuid_table_state(struct cpuid_table *table, struct stream *s)
{
    stream_section(s, "cpuid", 1);
    for (size_t i = 0; i < CPUID_TABLE_WORDS; i++)
        stream_u32(s, &table->words[i]);
    stream_u32(s, &table->phys_bits);
    if (s->loading && (table->phys_bits < PHYS_BITS_LEAST || table->phys_bits > PHYS_BITS_MOST))
        stream_refuse(s, -EPROTO, "its CPU has %u bits of physical address", table->phys_bits);
}

void cpuid_table_limit(const struct cpuid_table *table, struct x86_cpuid *cpuid)
{
    for (size_t i = 0; i < CPUID_TABLE_WORDS; i++)
        x86_cpuid_limit(cpuid, words[i].leaf, words[i].subleaf, words[i].reg, table->words[i]);
    if (table->phys_bits < cpuid->conf.phys_bits)
        cpuid->conf.phys_bits = table->phys_bits;
}

int cpuid_table_check(const struct cpuid_table *wanted, const struct cpuid_table *has, struct err *err)
{
    char missing[200] = "";

    for (size_t i = 0; i < CPUID_TABLE_WORDS; i++)
        x86_cpuid_name_bits(words[i].leaf, words[i].subleaf, words[i].reg, wanted->words[i] & ~has->words[i], missing,
                            sizeof(missing));
    if (*missing)
        return err_set(err, -EAGAIN, "the guest has found a CPU with %s, which this engine on this host lacks",
                       missing);
    if (wanted->phys_bits > has->phys_bits)
        return err_set(err, -EAGAIN,
                       "the guest has found a CPU with %u bits of physical address; this engine on this host has %u",
                       wanted->phys_bits, has->phys_bits);
    return 0;
}
