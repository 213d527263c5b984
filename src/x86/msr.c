/* See msr.h. */
#include "x86/msr.h"

#include <errno.h>

#include "core/pvclock.h"

enum {
    MSR_TSC = 0x10,
    MSR_KVM_WALL_CLOCK = 0x11, /* where MSR_KVM_WALL_CLOCK_NEW was first, as the next */
    MSR_KVM_SYSTEM_TIME = 0x12,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49, /* write only */
    MSR_BIOS_UPDT_TRIG = 0x79,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_MTRRCAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_MTRR_VAR = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
};

#define MSR_STAR           0xc0000081u
#define MSR_LSTAR          0xc0000082u
#define MSR_CSTAR          0xc0000083u
#define MSR_SFMASK         0xc0000084u
#define MSR_FS_BASE        0xc0000100u
#define MSR_GS_BASE        0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX        0xc0000103u

/*
 * The host's predictors and buffers never see guest code as code, so the flaws of the CPUs that vireo's claims to be are not there
 * (SDM Vol. 4 table 2-2): RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO,
 * PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. Guests then leave page-table isolation and retpolines off.
 */
#define ARCH_CAPABILITIES                                                                                             \
    (BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(20) | BIT(24) | \
     BIT(26) | BIT(27) | BIT(62))
#define BIT(n) (UINT64_C(1) << (n))

#define SYSTEM_TIME_ENABLE     1u
#define SPEC_CTRL_BITS         (3u | 1u << 10) /* IBRS, STIBP, BHI_DIS_S */
#define PRED_CMD_IBPB          1u
#define FEATURE_CONTROL_LOCKED 1u
#define MTRRCAP                (0x500u | X86_N_MTRR_VAR) /* write-combining and fixed ranges */
#define MCG_CAP                0u                        /* no bank */
#define MCG_STATUS_BITS        7u
/* Fast strings, thermal control, SpeedStep, MONITOR, CPUID limit, no xTPR messages, no XD: what firmware may set. */
#define MISC_ENABLE_WRITABLE   (BIT(0) | BIT(3) | BIT(16) | BIT(18) | X86_MISC_LIMIT_CPUID | BIT(23) | X86_MISC_NO_XD)
#define MISC_ENABLE_FIXED      (UINT64_C(1) << 11 | UINT64_C(1) << 12) /* no branch trace, no PEBS */
#define EFER_WRITABLE          (X86_EFER_SCE | X86_EFER_LME | X86_EFER_NX)

static bool canonical(uint64_t v)
{
    return (uint64_t)((int64_t)(v << 16) >> 16) == v;
}

/* Memory types: uncacheable, write combining, through, protected, back (SDM Vol. 3A table 11-8). */
static bool mtrr_type_valid(unsigned type)
{
    return type < 7 && (0x73 >> type & 1);
}

/* PAT adds UC- (7) to them. */
static bool pat_valid(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++)
        if (!mtrr_type_valid(pat >> (8 * i) & 0xff) && (pat >> (8 * i) & 0xff) != 7)
            return false;
    return true;
}

static bool mtrr_types_valid(uint64_t types)
{
    for (unsigned i = 0; i < 8; i++)
        if (!mtrr_type_valid(types >> (8 * i) & 0xff))
            return false;
    return true;
}

/* The fixed-range register `msr` names, in the state's order: 64K, two 16K, eight 4K; or NULL. */
static uint64_t *mtrr_fixed(struct x86_state *st, uint32_t msr)
{
    if (msr == MSR_MTRR_FIX64K)
        return &st->mtrr_fixed[0];
    if (msr >= MSR_MTRR_FIX16K && msr < MSR_MTRR_FIX16K + 2)
        return &st->mtrr_fixed[1 + msr - MSR_MTRR_FIX16K];
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
        return &st->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K];
    return NULL;
}

static bool is_mtrr_var(uint32_t msr)
{
    return msr >= MSR_MTRR_VAR && msr < MSR_MTRR_VAR + 2 * X86_N_MTRR_VAR;
}

static bool is_apic(uint32_t msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC && msr <= MSR_X2APIC_LAST);
}

/* Registers that hold any value, or any canonical address. */
static uint64_t *plain_register(struct x86_state *st, uint32_t msr, bool *address)
{
    *address = true;
    switch (msr) {
    case MSR_SYSENTER_ESP:
        return &st->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &st->sysenter_eip;
    case MSR_LSTAR:
        return &st->lstar;
    case MSR_CSTAR:
        return &st->cstar;
    case MSR_FS_BASE:
        return &st->seg[X86_FS].base;
    case MSR_GS_BASE:
        return &st->seg[X86_GS].base;
    case MSR_KERNEL_GS_BASE:
        return &st->kernel_gs_base;
    default:
        *address = false;
    }
    switch (msr) {
    case MSR_STAR:
        return &st->star;
    case MSR_SYSENTER_CS:
        return &st->sysenter_cs;
    default:
        return NULL;
    }
}

uint64_t msr_tsc(const struct msr_env *env)
{
    return clock_tsc(env->clock) + atomic_load(&env->port->tsc_offset);
}

/* Registers that come with a feature which not every model has. */
static bool is_missing(const struct x86_features *f, uint32_t msr)
{
    switch (msr) {
    case MSR_SPEC_CTRL:
    case MSR_PRED_CMD:
        return !f->ibrs;
    case MSR_ARCH_CAPABILITIES:
        return !f->arch_capabilities;
    case MSR_TSC_DEADLINE:
        return !f->tsc_deadline;
    default:
        return false;
    }
}

int msr_read(const struct msr_env *env, uint32_t msr, uint64_t *val)
{
    struct x86_state *st = env->st;
    const uint64_t *reg;
    bool address;

    if (is_missing(&env->cpuid->feat, msr))
        return -EPERM;
    if (is_apic(msr))
        return env->port->apic_ops ? env->port->apic_ops->msr_read(env->port->apic, msr, val) : -EPERM;
    reg = plain_register(st, msr, &address);
    if (!reg)
        reg = mtrr_fixed(st, msr);
    if (reg) {
        *val = *reg;
        return 0;
    }
    if (is_mtrr_var(msr)) {
        unsigned i = (msr - MSR_MTRR_VAR) / 2;
        *val = msr & 1 ? st->mtrr_var[i].mask : st->mtrr_var[i].base;
        return 0;
    }
    switch (msr) {
    case MSR_TSC:
        *val = msr_tsc(env);
        break;
    case MSR_TSC_ADJUST:
        *val = st->tsc_adjust;
        break;
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_NEW:
        *val = st->kvm_wall_clock;
        break;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
        *val = st->kvm_system_time;
        break;
    case MSR_SPEC_CTRL:
        *val = st->spec_ctrl;
        break;
    case MSR_PLATFORM_ID:
    case MSR_MCG_CAP: /* MCG_CAP has no bit set */
        *val = MCG_CAP;
        break;
    case MSR_BIOS_SIGN_ID:
        *val = UINT64_C(1) << 32; /* microcode revision 1 */
        break;
    case MSR_FEATURE_CONTROL:
        *val = FEATURE_CONTROL_LOCKED;
        break;
    case MSR_MTRRCAP:
        *val = MTRRCAP;
        break;
    case MSR_ARCH_CAPABILITIES:
        *val = ARCH_CAPABILITIES;
        break;
    case MSR_MCG_STATUS:
        *val = st->mcg_status;
        break;
    case MSR_MISC_ENABLE:
        *val = st->misc_enable | MISC_ENABLE_FIXED;
        break;
    case MSR_PAT:
        *val = st->pat;
        break;
    case MSR_MTRR_DEF_TYPE:
        *val = st->mtrr_def_type;
        break;
    case X86_MSR_EFER:
        *val = st->efer;
        break;
    case MSR_SFMASK:
        *val = st->sfmask;
        break;
    case MSR_TSC_AUX:
        *val = st->tsc_aux;
        break;
    default:
        return -EPERM;
    }
    return 0;
}

static int write_efer(struct x86_state *st, uint64_t val)
{
    /* LMA is the processor's to change; written back as read it is no error (SDM Vol. 3A 2.2.1). */
    if (val & ~(uint64_t)(EFER_WRITABLE | X86_EFER_LMA))
        return -EPERM;
    if ((st->misc_enable & X86_MISC_NO_XD) && (val & ~st->efer & X86_EFER_NX))
        return -EPERM;
    if ((st->cr0 & X86_CR0_PG) && ((val ^ st->efer) & X86_EFER_LME))
        return -EPERM;
    st->efer = (val & EFER_WRITABLE) | (st->efer & X86_EFER_LMA);
    return 0;
}

static int write_mtrr_var(const struct msr_env *env, uint32_t msr, uint64_t val)
{
    unsigned i = (msr - MSR_MTRR_VAR) / 2;

    if (val >> env->cpuid->conf.phys_bits)
        return -EPERM;
    if (msr & 1) {
        if (val & 0x7ff)
            return -EPERM;
        env->st->mtrr_var[i].mask = val;
    } else {
        if ((val & 0xf00) || !mtrr_type_valid(val & 0xff))
            return -EPERM;
        env->st->mtrr_var[i].base = val;
    }
    return 0;
}

/* Writing either of TSC and TSC_ADJUST moves both by the same amount (SDM Vol. 3B 17.17.3). */
static void move_tsc(const struct msr_env *env, uint64_t by)
{
    atomic_fetch_add(&env->port->tsc_offset, by);
    env->st->tsc_adjust += by;
    if (env->port->pvclock)
        pvclock_tsc_moved(env->port->pvclock);
    if (env->port->apic_ops && env->port->apic_ops->tsc_moved)
        env->port->apic_ops->tsc_moved(env->port->apic);
}

void msr_state_set(const struct x86_state *st, struct vcpu_port *port)
{
    uint64_t val = st->kvm_system_time;

    if (!port->pvclock)
        return;
    if (val & SYSTEM_TIME_ENABLE)
        pvclock_start(port->pvclock, val & ~(uint64_t)SYSTEM_TIME_ENABLE);
    else
        pvclock_stop(port->pvclock);
}

static void write_wall_clock(const struct msr_env *env, uint64_t val)
{
    env->st->kvm_wall_clock = val;
    if (env->port->pvclock && val)
        pvclock_write_wall(env->port->pvclock->pvclock, val);
}

/* Stores val if it is valid for that register. */
static int write_checked(uint64_t *reg, uint64_t val, bool valid)
{
    if (!valid)
        return -EPERM;
    *reg = val;
    return 0;
}

int msr_write(const struct msr_env *env, uint32_t msr, uint64_t val)
{
    struct x86_state *st = env->st;
    bool address;
    uint64_t *reg;

    if (is_missing(&env->cpuid->feat, msr))
        return -EPERM;
    if (is_apic(msr))
        return env->port->apic_ops ? env->port->apic_ops->msr_write(env->port->apic, msr, val) : -EPERM;
    reg = plain_register(st, msr, &address);
    if (reg)
        return write_checked(reg, val, !address || canonical(val));
    reg = mtrr_fixed(st, msr);
    if (reg)
        return write_checked(reg, val, mtrr_types_valid(val));
    if (is_mtrr_var(msr))
        return write_mtrr_var(env, msr, val);

    switch (msr) {
    case MSR_TSC:
        move_tsc(env, val - msr_tsc(env));
        return 0;
    case MSR_TSC_ADJUST:
        move_tsc(env, val - st->tsc_adjust);
        return 0;
    case MSR_KVM_WALL_CLOCK:
    case MSR_KVM_WALL_CLOCK_NEW:
        write_wall_clock(env, val);
        return 0;
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
        st->kvm_system_time = val;
        msr_state_set(st, env->port);
        return 0;
    case MSR_SPEC_CTRL:
        return write_checked(&st->spec_ctrl, val, !(val & ~(uint64_t)SPEC_CTRL_BITS));
    case MSR_PRED_CMD: /* nothing of the guest's is predicted */
        return val & ~(uint64_t)PRED_CMD_IBPB ? -EPERM : 0;
    case MSR_BIOS_UPDT_TRIG: /* no update fits */
    case MSR_BIOS_SIGN_ID:   /* written 0 before CPUID, by those who read the revision */
        return 0;
    case MSR_MCG_STATUS:
        return write_checked(&st->mcg_status, val, !(val & ~(uint64_t)MCG_STATUS_BITS));
    case MSR_MISC_ENABLE:
        return write_checked(&st->misc_enable, val & MISC_ENABLE_WRITABLE,
                             !(val & ~(MISC_ENABLE_WRITABLE | MISC_ENABLE_FIXED)));
    case MSR_PAT:
        return write_checked(&st->pat, val, pat_valid(val));
    case MSR_MTRR_DEF_TYPE:
        return write_checked(&st->mtrr_def_type, val, !(val & ~UINT64_C(0xcff)) && mtrr_type_valid(val & 0xff));
    case X86_MSR_EFER:
        return write_efer(st, val);
    case MSR_SFMASK:
        return write_checked(&st->sfmask, val, !(val >> 32));
    case MSR_TSC_AUX:
        return write_checked(&st->tsc_aux, val, !(val >> 32));
    default:
        return -EPERM;
    }
}
