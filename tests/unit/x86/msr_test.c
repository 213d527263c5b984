/* MSRs: what they refuse, and the time-stamp counter's arithmetic. */
#include "x86/msr.h"

#include <errno.h>

#include "core/pvclock.h"
#include "unit.h"

struct world {
    struct x86_state st;
    struct x86_cpuid cpuid;
    struct vcpu_port port;
    struct clock clock;
    struct msr_env env;
};

static void open_world(struct world *w)
{
    const struct x86_cpuid_conf conf = {.n_cpus = 1, .tsc_hz = 1000000000, .phys_bits = 39};

    memset(w, 0, sizeof(*w));
    x86_state_reset(&w->st, true);
    x86_cpuid_init(&w->cpuid, &conf);
    clock_init(&w->clock, NULL, 1000000000);
    w->env = (struct msr_env){&w->st, &w->cpuid, &w->port, &w->clock};
}

static uint64_t rd(struct world *w, uint32_t msr)
{
    uint64_t val = 0;
    assert_int_equal(msr_read(&w->env, msr, &val), 0);
    return val;
}

static void refuses(struct world *w, uint32_t msr, uint64_t val)
{
    assert_int_equal(msr_write(&w->env, msr, val), -EPERM);
}

static void takes(struct world *w, uint32_t msr, uint64_t val)
{
    assert_int_equal(msr_write(&w->env, msr, val), 0);
    assert_int_equal(rd(w, msr), val);
}

static void unknown_and_read_only(void **state)
{
    struct world w;
    uint64_t val;
    open_world(&w);
    assert_int_equal(msr_read(&w.env, 0x12345, &val), -EPERM);
    assert_int_equal(msr_read(&w.env, 0x49, &val), -EPERM); /* PRED_CMD cannot be read */
    refuses(&w, 0xfe, 0);
    refuses(&w, 0x3a, 5);
    refuses(&w, 0x10a, 0);
    assert_int_equal(rd(&w, 0x3a), 1);
    assert_int_equal(rd(&w, 0xfe), 0x508);
}

static void speculation_control(void **state)
{
    struct world w;
    open_world(&w);
    takes(&w, 0x48, 3 | 1 << 10);
    takes(&w, 0x48, 3);
    assert_int_equal(rd(&w, 0x48), 3);
    refuses(&w, 0x48, 4);
    assert_int_equal(msr_write(&w.env, 0x49, 1), 0);
    refuses(&w, 0x49, 2);
    assert_true(rd(&w, 0x10a) & 2); /* IBRS_ALL, which CPUID's IBRS backs */
}

static void addresses_are_canonical(void **state)
{
    static const uint32_t msrs[] = {0x175, 0x176, 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102};
    struct world w;
    open_world(&w);
    for (size_t i = 0; i < ARRAY_SIZE(msrs); i++) {
        refuses(&w, msrs[i], UINT64_C(0x800000000000));
        takes(&w, msrs[i], UINT64_C(0xffff800000000000));
    }
}

static void efer(void **state)
{
    struct world w;
    open_world(&w);
    refuses(&w, X86_MSR_EFER, 1 << 1);
    refuses(&w, X86_MSR_EFER, 1 << 12);
    takes(&w, X86_MSR_EFER, X86_EFER_LME | X86_EFER_NX | X86_EFER_SCE);
    w.st.cr0 |= X86_CR0_PG;
    refuses(&w, X86_MSR_EFER, X86_EFER_NX);
    assert_int_equal(msr_write(&w.env, X86_MSR_EFER, X86_EFER_LME | X86_EFER_LMA), 0);
    assert_int_equal(w.st.efer, X86_EFER_LME); /* LMA is not for software to set */
}

static void misc_enable(void **state)
{
    struct world w;
    open_world(&w);
    takes(&w, 0x1a0, UINT64_C(0x400c51809)); /* branch trace and PEBS unavailable: fixed */
    refuses(&w, 0x1a0, UINT64_C(0x1802));
    assert_int_equal(x86_cpuid(&w.cpuid, &w.st, true, 0, 0).eax, 2);
    assert_int_equal(x86_cpuid(&w.cpuid, &w.st, true, 0x80000001, 0).edx & 1 << 20, 0);
    refuses(&w, X86_MSR_EFER, X86_EFER_NX);
    takes(&w, 0x1a0, UINT64_C(0x1801));
    assert_int_equal(x86_cpuid(&w.cpuid, &w.st, true, 7, 0).ebx & 1, 1);
    assert_int_equal(x86_cpuid(&w.cpuid, &w.st, true, 0x80000001, 0).edx & 1 << 20, 1 << 20);
    takes(&w, X86_MSR_EFER, X86_EFER_NX);
}

static void memory_types(void **state)
{
    struct world w;
    open_world(&w);
    refuses(&w, 0x277, 2);
    takes(&w, 0x277, UINT64_C(0x0007010600070106));
    refuses(&w, 0x250, 0x0202020202020202);
    takes(&w, 0x26f, 0x0606060606060606);
    refuses(&w, 0x200, 7);
    refuses(&w, 0x200, UINT64_C(1) << 39);
    refuses(&w, 0x201, 1);
    takes(&w, 0x20f, UINT64_C(0x7ffff00800));
    refuses(&w, 0x210, 0);
    refuses(&w, 0x2ff, 0x107);
    takes(&w, 0x2ff, 0xc06);
}

static void tsc_and_adjust_move_together(void **state)
{
    struct world w;
    open_world(&w); /* the clock stands */
    takes(&w, 0x10, 1000);
    assert_int_equal(rd(&w, 0x3b), 1000);
    takes(&w, 0x3b, 400);
    assert_int_equal(rd(&w, 0x10), 400);
}

static void kvm_clock(void **state)
{
    struct world w;
    struct ram ram;
    struct pvclock pv;
    struct pvclock_vcpu vcpu;
    struct err err;

    open_world(&w);
    takes(&w, MSR_KVM_SYSTEM_TIME_NEW, 0x1001); /* a vCPU that has no clock keeps what is written */
    assert_int_equal(ram_open(&ram, 64 * KIB, 2 * GIB, &err), 0);
    pvclock_init(&pv, &ram, &w.clock);
    pvclock_join(&pv, &vcpu, &w.port);

    takes(&w, MSR_KVM_SYSTEM_TIME_NEW, 0x1000); /* not enabled */
    assert_int_equal(load_le32(ram.base + 0x1000), 0);
    takes(&w, MSR_KVM_SYSTEM_TIME_NEW, 0x1001);
    assert_int_equal(rd(&w, 0x12), 0x1001);
    assert_int_equal(load_le32(ram.base + 0x1000), 2);
    takes(&w, 0x3b, 5555);
    assert_int_equal(load_le64(ram.base + 0x1008), 5555);
    takes(&w, 0x12, 0);
    takes(&w, 0x3b, 6666);
    assert_int_equal(load_le64(ram.base + 0x1008), 5555);

    /* As from a saved state, and from one without. */
    w.st.kvm_system_time = 0x2001;
    msr_state_set(&w.st, &w.port);
    assert_int_equal(load_le64(ram.base + 0x2008), 6666);
    w.st.kvm_system_time = 0;
    msr_state_set(&w.st, &w.port);
    takes(&w, 0x10, 7777);
    assert_int_equal(load_le64(ram.base + 0x2008), 6666);

    takes(&w, MSR_KVM_WALL_CLOCK_NEW, 0x3000);
    assert_int_equal(rd(&w, 0x11), 0x3000);
    assert_int_equal(load_le32(ram.base + 0x3000), 2);
    takes(&w, 0x11, 0); /* no address */
    assert_int_equal(load_le32(ram.base), 0);
    takes(&w, MSR_KVM_SYSTEM_TIME_NEW, UINT64_MAX); /* no error, as on KVM */
    pvclock_leave(&vcpu);
    pvclock_fini(&pv);
    ram_close(&ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_and_read_only),
        cmocka_unit_test(speculation_control),
        cmocka_unit_test(addresses_are_canonical),
        cmocka_unit_test(efer),
        cmocka_unit_test(misc_enable),
        cmocka_unit_test(memory_types),
        cmocka_unit_test(tsc_and_adjust_move_together),
        cmocka_unit_test(kvm_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
