/*
 * Control and debug registers, MSRs, TLB and cache control, time-stamp, and what else only a kernel uses and is neither a far transfer
 * (op_far.c) nor a segment load (op_segment.c).
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"
#include "engine/interp/fault.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"
#include "x86/msr.h"
#include "x86/paging.h"

#define CR0_BITS                                                                                             \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | \
     X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
#define CR4_BITS                                                                                                       \
    (X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | \
     X86_CR4_OSXMMEXCPT)
#define CR3_NOFLUSH (UINT64_C(1) << 63)

#define DR6_FIXED UINT64_C(0xffff0ff0)
#define DR6_BITS  UINT64_C(0xe00f)
#define DR6_BD    (1u << 13)
#define DR7_FIXED UINT64_C(0x400)
#define DR7_BITS  UINT64_C(0xffff23ff)
#define DR7_GD    (1u << 13)

_Noreturn static void gp0(struct interp *c)
{
    interp_raise_error(c, X86_GP, 0);
}

static void need_cpl0(struct interp *c)
{
    if (x86_cpl(&c->st))
        gp0(c);
}

static void set_gpr32(struct interp *c, unsigned reg, uint32_t v)
{
    c->st.gpr[reg] = v;
}

static uint64_t edx_eax(const struct interp *c)
{
    return c->st.gpr[X86_RDX] << 32 | (uint32_t)c->st.gpr[X86_RAX];
}

static void set_edx_eax(struct interp *c, uint64_t v)
{
    set_gpr32(c, X86_RAX, (uint32_t)v);
    set_gpr32(c, X86_RDX, (uint32_t)(v >> 32));
}

/* ---- control registers (SDM Vol. 2B, MOV to CR; Vol. 3A 2.5, 4.1.2, 9.8.5) ---- */

/* Loads PAE's PDPTEs if the mode to come uses them; #GP(0) before anything changed. */
static void load_pdpte(struct interp *c, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
    if ((cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & X86_EFER_LMA) &&
        paging_load_pdpte(c->conf.ram, cr3, c->conf.cpuid->conf.phys_bits, c->st.pdpte) < 0)
        gp0(c);
}

static void write_cr0(struct interp *c, uint64_t val)
{
    struct x86_state *st = &c->st;
    uint64_t changed, efer = st->efer;

    if (val >> 32)
        gp0(c);
    val = (val & CR0_BITS) | X86_CR0_ET;
    changed = val ^ st->cr0;
    if (((val & X86_CR0_PG) && !(val & X86_CR0_PE)) || ((val & X86_CR0_NW) && !(val & X86_CR0_CD)))
        gp0(c);
    if (changed & X86_CR0_PG) {
        if (val & X86_CR0_PG) {
            if (efer & X86_EFER_LME) {
                if (!(st->cr4 & X86_CR4_PAE) || (st->seg[X86_CS].attr & X86_SEG_L) ||
                    (st->tr.attr & X86_SEG_TYPE) < 8) /* a 16-bit TSS can not serve IA-32e mode */
                    gp0(c);
                efer |= X86_EFER_LMA;
            }
        } else {
            if (c->code_size == 8 || (st->cr4 & X86_CR4_PCIDE))
                gp0(c);
            efer &= ~(uint64_t)X86_EFER_LMA;
        }
    }
    if (changed & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW))
        load_pdpte(c, val, st->cr3, st->cr4, efer);
    st->cr0 = val;
    st->efer = efer;
    if (changed & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
        mmu_flush_all(c);
    mmu_mode_changed(c);
}

static void write_cr3(struct interp *c, uint64_t val)
{
    struct x86_state *st = &c->st;
    bool keep = (st->cr4 & X86_CR4_PCIDE) && (val & CR3_NOFLUSH);

    if (x86_long_mode(st)) {
        if (st->cr4 & X86_CR4_PCIDE)
            val &= ~CR3_NOFLUSH;
        if (val >> c->conf.cpuid->conf.phys_bits)
            gp0(c);
    } else {
        val = (uint32_t)val;
        load_pdpte(c, st->cr0, val, st->cr4, st->efer);
    }
    st->cr3 = val;
    mmu_switch(c, st->cr4 & X86_CR4_PCIDE ? val & 0xfff : 0, keep);
}

static uint64_t cr4_bits(const struct x86_features *f)
{
    return CR4_BITS | (f->umip ? X86_CR4_UMIP : 0) | (f->fsgsbase ? X86_CR4_FSGSBASE : 0) |
           (f->pcid ? X86_CR4_PCIDE : 0) | (f->xsave ? X86_CR4_OSXSAVE : 0) | (f->smep ? X86_CR4_SMEP : 0) |
           (f->smap ? X86_CR4_SMAP : 0);
}

static void write_cr4(struct interp *c, uint64_t val)
{
    struct x86_state *st = &c->st;
    uint64_t changed = val ^ st->cr4;

    if (val & ~cr4_bits(&c->conf.cpuid->feat))
        gp0(c);
    if (x86_long_mode(st) && !(val & X86_CR4_PAE))
        gp0(c);
    if ((changed & val & X86_CR4_PCIDE) && (!x86_long_mode(st) || (st->cr3 & 0xfff)))
        gp0(c);
    if (changed & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_SMEP))
        load_pdpte(c, st->cr0, st->cr3, val, st->efer);
    st->cr4 = val;
    if (changed & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_PCIDE | X86_CR4_DE))
        mmu_flush_all(c);
    if (changed & X86_CR4_PCIDE)
        mmu_switch(c, 0, false);
    mmu_mode_changed(c);
}

static void op_mov_from_cr(struct interp *c, const struct insn *in)
{
    const struct x86_state *st = &c->st;
    uint64_t v = 0;

    need_cpl0(c);
    interp_exit(c, ENGINE_EXIT_CR_ACCESS, in->imm);
    switch (in->imm) {
    case 0:
        v = st->cr0;
        break;
    case 2:
        v = st->cr2;
        break;
    case 3:
        v = st->cr3;
        break;
    case 4:
        v = st->cr4;
        break;
    default:
        v = c->conf.port->apic_ops ? c->conf.port->apic_ops->cr8_get(c->conf.port->apic) : 0;
    }
    *(uint64_t *)interp_reg(c, in->reg) = in->size == 8 ? v : (uint32_t)v;
}

static void op_mov_to_cr(struct interp *c, const struct insn *in)
{
    uint64_t v = *(const uint64_t *)interp_reg(c, in->reg);

    need_cpl0(c);
    interp_exit(c, ENGINE_EXIT_CR_ACCESS, in->imm);
    if (in->size != 8)
        v = (uint32_t)v;
    switch (in->imm) {
    case 0:
        write_cr0(c, v);
        break;
    case 2:
        c->st.cr2 = v;
        break;
    case 3:
        write_cr3(c, v);
        break;
    case 4:
        write_cr4(c, v);
        break;
    default:
        if (v & ~UINT64_C(15))
            gp0(c);
        if (c->conf.port->apic_ops)
            c->conf.port->apic_ops->cr8_set(c->conf.port->apic, (uint8_t)v);
    }
    c->attention |= ATTN_RECHECK;
}

static void op_lmsw(struct interp *c, const struct insn *in)
{
    uint64_t v;

    need_cpl0(c);
    v = system_read_rm16(c, in);
    /* PE can be set, not cleared (SDM Vol. 2A, LMSW). */
    write_cr0(c, (c->st.cr0 & ~UINT64_C(0xe)) | (v & 0xf));
}

static void op_smsw(struct interp *c, const struct insn *in)
{
    system_check_umip(c);
    system_write_rm(c, in, c->st.cr0);
}

static void op_clts(struct interp *c, const struct insn *in)
{
    need_cpl0(c);
    c->st.cr0 &= ~(uint64_t)X86_CR0_TS;
}

/* ---- debug registers (SDM Vol. 3B 17.2) ---- */

/* DR4 and DR5 are DR6 and DR7, unless CR4.DE; GD guards them all. */
static unsigned check_dr(struct interp *c, unsigned n)
{
    if ((n == 4 || n == 5) && (c->st.cr4 & X86_CR4_DE))
        interp_raise(c, X86_UD);
    need_cpl0(c);
    if (c->st.dr7 & DR7_GD)
        interp_raise_debug(c, DR6_BD);
    return n == 4 || n == 5 ? n + 2 : n;
}

static void op_mov_from_dr(struct interp *c, const struct insn *in)
{
    unsigned n = check_dr(c, (unsigned)in->imm);
    uint64_t v = n < 4 ? c->st.dr[n] : n == 6 ? c->st.dr6 : c->st.dr7;

    *(uint64_t *)interp_reg(c, in->reg) = in->size == 8 ? v : (uint32_t)v;
}

static void op_mov_to_dr(struct interp *c, const struct insn *in)
{
    unsigned n = check_dr(c, (unsigned)in->imm);
    uint64_t v = *(const uint64_t *)interp_reg(c, in->reg);

    if (in->size != 8)
        v = (uint32_t)v;
    if (n >= 6 && v >> 32)
        gp0(c);
    if (n < 4)
        c->st.dr[n] = v;
    else if (n == 6)
        c->st.dr6 = (v & DR6_BITS) | DR6_FIXED;
    else
        c->st.dr7 = (v & DR7_BITS) | DR7_FIXED;
    /* Pages with breakpoints leave the TLB, others may come back. */
    mmu_flush_all(c);
    mmu_mode_changed(c);
}

/* ---- MSRs ---- */

static struct msr_env msr_env(struct interp *c)
{
    return (struct msr_env){.st = &c->st, .cpuid = c->conf.cpuid, .port = c->conf.port, .clock = c->conf.clock};
}

static void op_rdmsr(struct interp *c, const struct insn *in)
{
    struct msr_env env = msr_env(c);
    uint64_t v = 0;

    need_cpl0(c);
    interp_exit(c, ENGINE_EXIT_MSR_READ, (uint32_t)c->st.gpr[X86_RCX]);
    if (msr_read(&env, (uint32_t)c->st.gpr[X86_RCX], &v) < 0)
        gp0(c);
    set_edx_eax(c, v);
}

static void op_wrmsr(struct interp *c, const struct insn *in)
{
    struct msr_env env = msr_env(c);
    uint64_t efer = c->st.efer;

    need_cpl0(c);
    interp_exit(c, ENGINE_EXIT_MSR_WRITE, (uint32_t)c->st.gpr[X86_RCX]);
    if (msr_write(&env, (uint32_t)c->st.gpr[X86_RCX], edx_eax(c)) < 0)
        gp0(c);
    if (c->st.efer != efer) {
        mmu_flush_all(c);
        mmu_mode_changed(c);
    }
    c->attention |= ATTN_RECHECK;
}

static void op_rdtsc(struct interp *c, const struct insn *in)
{
    struct msr_env env = msr_env(c);

    if ((c->st.cr4 & X86_CR4_TSD) && x86_cpl(&c->st))
        gp0(c);
    set_edx_eax(c, msr_tsc(&env));
}

static void op_rdtscp(struct interp *c, const struct insn *in)
{
    op_rdtsc(c, in);
    set_gpr32(c, X86_RCX, (uint32_t)c->st.tsc_aux);
}

static void op_rdpid(struct interp *c, const struct insn *in)
{
    *(uint64_t *)interp_reg(c, in->reg) = (uint32_t)c->st.tsc_aux;
}

/* There is no counter to name. */
static void op_rdpmc(struct interp *c, const struct insn *in)
{
    gp0(c);
}

static void op_cpuid(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    struct msr_env env = msr_env(c);
    uint64_t apic_base = 0;
    struct x86_cpuid_regs r;

    interp_exit(c, ENGINE_EXIT_CPUID, (uint32_t)st->gpr[X86_RAX]);
    if (msr_read(&env, 0x1b, &apic_base) < 0)
        apic_base = 0;
    r = x86_cpuid(c->conf.cpuid, st, apic_base & (1u << 11), (uint32_t)st->gpr[X86_RAX], (uint32_t)st->gpr[X86_RCX]);
    set_gpr32(c, X86_RAX, r.eax);
    set_gpr32(c, X86_RBX, r.ebx);
    set_gpr32(c, X86_RCX, r.ecx);
    set_gpr32(c, X86_RDX, r.edx);
}

/* ---- caches and TLB ---- */

static void op_cache(struct interp *c, const struct insn *in)
{
    need_cpl0(c);
}

static void op_invlpg(struct interp *c, const struct insn *in)
{
    uint64_t lin;

    need_cpl0(c);
    lin = *(const uint64_t *)interp_reg(c, in->seg_base) + insn_offset(c, in);
    if (c->code_size != 8)
        lin = (uint32_t)lin;
    mmu_flush_page(c, lin);
}

/* SDM Vol. 2A, INVPCID. More than asked for may go: an address goes from every space. */
static void op_invpcid(struct interp *c, const struct insn *in)
{
    uint64_t type = *(const uint64_t *)interp_reg(c, in->reg), lin, address;
    uint8_t desc[16];
    uint64_t pcid;

    need_cpl0(c);
    lin = insn_lin(c, in, sizeof(desc), false);
    if (c->code_size != 8)
        type = (uint32_t)type;
    mmu_load_bytes(c, lin, desc, sizeof(desc));
    pcid = load_le64(desc);
    address = load_le64(desc + 8);
    if (type > 3)
        gp0(c);
    if (type < 2 && ((pcid >> 12) || (pcid && !(c->st.cr4 & X86_CR4_PCIDE))))
        gp0(c);
    if (type == 0 && !seg_canonical(address))
        gp0(c);
    if (type == 0)
        mmu_flush_page(c, address);
    else if (type == 1)
        mmu_flush_nonglobal(c, (int)pcid);
    else if (type == 2)
        mmu_flush_all(c);
    else
        mmu_flush_nonglobal(c, MMU_ALL_SPACES);
}

/* ---- the rest ---- */

static void op_hlt(struct interp *c, const struct insn *in)
{
    need_cpl0(c);
    interp_exit(c, ENGINE_EXIT_HLT, 0);
    c->st.activity = X86_HALTED;
    c->exit = ENGINE_HALT;
    c->attention |= ATTN_EXIT | ATTN_RECHECK;
}

static void op_swapgs(struct interp *c, const struct insn *in)
{
    uint64_t base = c->st.seg[X86_GS].base;

    if (x86_cpl(&c->st))
        gp0(c);
    c->st.seg[X86_GS].base = c->st.kernel_gs_base;
    c->st.kernel_gs_base = base;
}

/* RDFSBASE and its kin: in->imm is the segment. */
static void op_rd_base(struct interp *c, const struct insn *in)
{
    uint64_t base = c->st.seg[in->imm].base;

    if (!(c->st.cr4 & X86_CR4_FSGSBASE))
        interp_raise(c, X86_UD);
    *(uint64_t *)interp_reg(c, in->reg) = in->size == 8 ? base : (uint32_t)base;
}

static void op_wr_base(struct interp *c, const struct insn *in)
{
    uint64_t base = *(const uint64_t *)interp_reg(c, in->reg);

    if (!(c->st.cr4 & X86_CR4_FSGSBASE))
        interp_raise(c, X86_UD);
    if (in->size != 8)
        base = (uint32_t)base;
    if (!seg_canonical(base))
        gp0(c);
    c->st.seg[in->imm].base = base;
}

/* ---- binding ---- */

static bool is_special(const ZydisDecodedOperand *op)
{
    ZydisRegisterClass class = bind_is_reg(op) ? ZydisRegisterGetClass(op->reg.value) : ZYDIS_REGCLASS_INVALID;
    return class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG;
}

/* Control and debug registers: 64 bits wide in 64-bit mode whatever the prefixes, else 32. */
static interp_fn bind_mov(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool to = is_special(&xi->op[0]);
    const ZydisDecodedOperand *special = &xi->op[to ? 0 : 1];

    if (!is_special(special))
        return NULL;
    in->reg = bind_reg(xi->op[to ? 1 : 0].reg.value);
    in->imm = (uint64_t)ZydisRegisterGetId(special->reg.value);
    in->size = xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? 8 : 4;
    if (ZydisRegisterGetClass(special->reg.value) == ZYDIS_REGCLASS_DEBUG)
        return in->imm > 7 ? op_ud : to ? op_mov_to_dr : op_mov_from_dr;
    if (in->imm == 1 || (in->imm > 4 && in->imm != 8))
        return op_ud;
    return to ? op_mov_to_cr : op_mov_from_cr;
}

#define BIND_PLAIN(name)                                                                                    \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return op_##name;                                                                                   \
    }
BIND_PLAIN(clts)
BIND_PLAIN(rdmsr)
BIND_PLAIN(wrmsr)
BIND_PLAIN(rdtsc)
BIND_PLAIN(rdtscp)
BIND_PLAIN(rdpmc)
BIND_PLAIN(cpuid)
BIND_PLAIN(cache)
BIND_PLAIN(invlpg)
BIND_PLAIN(hlt)
BIND_PLAIN(swapgs)
#undef BIND_PLAIN

static interp_fn bind_lmsw(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    system_bind_rm(xi, in);
    return op_lmsw;
}

static interp_fn bind_smsw(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    system_bind_rm(xi, in);
    return op_smsw;
}

static interp_fn bind_invpcid(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->reg = bind_reg(xi->op[0].reg.value);
    return op_invpcid;
}

static interp_fn bind_rdpid(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->reg = bind_reg(xi->op[0].reg.value);
    return op_rdpid;
}

static interp_fn bind_base(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    unsigned mnemonic = xi->insn.mnemonic;
    bool write = mnemonic == ZYDIS_MNEMONIC_WRFSBASE || mnemonic == ZYDIS_MNEMONIC_WRGSBASE;
    bool fs = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE;

    in->reg = bind_reg(xi->op[0].reg.value);
    in->size = (uint8_t)(xi->op[0].size / 8);
    in->imm = fs ? X86_FS : X86_GS;
    return write ? op_wr_base : op_rd_base;
}

const struct bind_entry op_system_binds[] = {
    {ZYDIS_MNEMONIC_MOV, bind_mov},         {ZYDIS_MNEMONIC_LMSW, bind_lmsw},
    {ZYDIS_MNEMONIC_SMSW, bind_smsw},       {ZYDIS_MNEMONIC_CLTS, bind_clts},
    {ZYDIS_MNEMONIC_RDMSR, bind_rdmsr},     {ZYDIS_MNEMONIC_WRMSR, bind_wrmsr},
    {ZYDIS_MNEMONIC_RDTSC, bind_rdtsc},     {ZYDIS_MNEMONIC_RDTSCP, bind_rdtscp},
    {ZYDIS_MNEMONIC_RDPMC, bind_rdpmc},     {ZYDIS_MNEMONIC_RDPID, bind_rdpid},
    {ZYDIS_MNEMONIC_CPUID, bind_cpuid},     {ZYDIS_MNEMONIC_INVD, bind_cache},
    {ZYDIS_MNEMONIC_WBINVD, bind_cache},    {ZYDIS_MNEMONIC_INVLPG, bind_invlpg},
    {ZYDIS_MNEMONIC_INVPCID, bind_invpcid}, {ZYDIS_MNEMONIC_HLT, bind_hlt},
    {ZYDIS_MNEMONIC_SWAPGS, bind_swapgs},   {ZYDIS_MNEMONIC_RDFSBASE, bind_base},
    {ZYDIS_MNEMONIC_RDGSBASE, bind_base},   {ZYDIS_MNEMONIC_WRFSBASE, bind_base},
    {ZYDIS_MNEMONIC_WRGSBASE, bind_base},   {0, NULL},
};
