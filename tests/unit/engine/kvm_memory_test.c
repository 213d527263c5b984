/*
 * Memory slots of the KVM engine against whatever /dev/kvm there is: which pages the guest writes, by bitmap and by ring, and read-only memory.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/pvclock.h"
#include "engine/kvm/kvm.h"
#include "unit.h"

#define RAM_SIZE     (12 * MIB)
#define PAGES        (RAM_SIZE / RAM_PAGE_SIZE)
#define CODE_AT      0x1000
#define FIRST_AT     0x100000u
#define ROM_AT       0xd0000000u
#define RING_ENTRIES 1024 /* the least that every KVM takes */

extern const struct engine_type kvm_engine;

struct fixture {
    struct ram ram;
    struct bus pio, mmio;
    struct loop *loop;
    struct clock clock;
    struct vcpu_port port;
    struct x86_cpuid cpuid;
    struct engine_stats stats;
    struct engine *engine;
    struct engine_vcpu *vcpu;
    uint64_t written, at; /* to the bus */
    uint64_t bits[PAGES / 64];
};

static uint64_t no_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return 0;
}

static void rom_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct fixture *f = opaque;

    f->at = off;
    f->written = val;
}

static int setup(void **state)
{
    const unsigned *entries = *state;
    struct fixture *f = calloc(1, sizeof(*f));
    const struct bus_region rom = {.base = ROM_AT, .size = 8192, .read = no_read, .write = rom_write, .opaque = f};
    struct err err = {0};

    *state = NULL;
    if (!f || access(KVM_PROBE_DEVICE, R_OK | W_OK) < 0) {
        free(f);
        return 0;
    }
    assert_int_equal(ram_open(&f->ram, RAM_SIZE, RAM_SIZE, &err), 0);
    bus_init(&f->pio, NULL);
    bus_init(&f->mmio, NULL);
    assert_int_equal(bus_add(&f->mmio, &rom), 0);
    assert_int_equal(loop_open(&f->loop, &err), 0);
    clock_init(&f->clock, f->loop, NS_PER_SEC);
    int r = kvm_engine.open(
        &f->engine, &(struct engine_conf){.ram = &f->ram, .n_vcpus = 1, .dirty_ring = entries ? *entries : 0}, &err);
    if (r < 0)
        print_message("# %s\n", err.msg);
    assert_int_equal(r, 0);
    x86_cpuid_init(&f->cpuid, &(struct x86_cpuid_conf){.n_cpus = 1, .tsc_hz = NS_PER_SEC, .phys_bits = 40});
    const struct engine_vcpu_conf conf = {.ram = &f->ram,
                                          .pio = &f->pio,
                                          .mmio = &f->mmio,
                                          .port = &f->port,
                                          .clock = &f->clock,
                                          .cpuid = &f->cpuid,
                                          .stats = &f->stats};
    assert_int_equal(kvm_engine.vcpu_open(f->engine, &conf, &f->vcpu, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (!f)
        return 0;
    kvm_engine.vcpu_close(f->vcpu);
    kvm_engine.close(f->engine);
    clock_fini(&f->clock);
    loop_close(f->loop);
    bus_fini(&f->mmio);
    bus_fini(&f->pio);
    ram_close(&f->ram);
    free(f);
    return 0;
}

static struct fixture *fixture(void **state)
{
    if (!*state)
        skip();
    return *state;
}

/* 32-bit protected mode, flat; RBX and RCX for the code. */
static void run(struct fixture *f, const void *code, size_t len, uint32_t rbx, uint32_t rcx)
{
    struct x86_state st;

    assert_int_equal(ram_write(&f->ram, CODE_AT, code, len), 0);
    x86_state_reset(&st, true);
    st.cr0 = X86_CR0_PE | X86_CR0_ET;
    st.rip = CODE_AT;
    st.gpr[X86_RBX] = rbx;
    st.gpr[X86_RCX] = rcx;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st.seg[i] = (struct x86_seg){.sel = 0x10, .limit = UINT32_MAX, .attr = 0xc093};
    st.seg[X86_CS] = (struct x86_seg){.sel = 0x08, .limit = UINT32_MAX, .attr = 0xc09b};
    kvm_engine.set(f->vcpu, &st);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT);
}

/* ---- dirty pages ---- */

/* 1: mov [ebx],al; add ebx,4096; dec ecx; jnz 1b; hlt */
static const uint8_t write_pages[] = {0x88, 0x03, 0x81, 0xc3, 0, 0x10, 0, 0, 0x49, 0x75, 0xf5, 0xf4};

/* The pages read since the last time, which begin at FIRST_AT, and no other of RAM's from there on. */
static void expect_dirty(struct fixture *f, unsigned n)
{
    memset(f->bits, 0, sizeof(f->bits));
    assert_int_equal(kvm_engine.dirty_read(f->engine, f->bits), 0);
    for (unsigned i = FIRST_AT / RAM_PAGE_SIZE; i < PAGES; i++)
        assert_int_equal(f->bits[i / 64] >> i % 64 & 1, i < FIRST_AT / RAM_PAGE_SIZE + n);
}

static void dirty_pages(void **state)
{
    struct fixture *f = fixture(state);
    struct err err = {0};

    run(f, write_pages, sizeof(write_pages), FIRST_AT, 3); /* nobody has asked */
    assert_int_equal(kvm_engine.dirty_start(f->engine, &err), 0);
    run(f, write_pages, sizeof(write_pages), FIRST_AT, 5);
    expect_dirty(f, 5);
    expect_dirty(f, 0);
    run(f, write_pages, sizeof(write_pages), FIRST_AT, 2); /* again, though mapped by now */
    expect_dirty(f, 2);
    kvm_engine.dirty_stop(f->engine);
    run(f, write_pages, sizeof(write_pages), FIRST_AT, 4);
    assert_int_equal(kvm_engine.dirty_start(f->engine, &err), 0);
    expect_dirty(f, 0);
    kvm_engine.dirty_stop(f->engine);
}

/* Whether a CPU runs the guest. KVMs that interpret kernel code are let off what they are known to do otherwise. */
static bool on_cpu(void)
{
    struct err err;
    uint64_t rate;

    return getenv("VIREO_TEST_KVM") || kvm_probe(KVM_PROBE_DEVICE, &rate, &err) == 0;
}

/* More than a ring holds. */
static void many_dirty_pages(void **state)
{
    struct fixture *f = fixture(state);
    struct err err = {0};

    if (f->engine->ring_entries && !on_cpu())
        skip();
    assert_int_equal(kvm_engine.dirty_start(f->engine, &err), 0);
    run(f, write_pages, sizeof(write_pages), FIRST_AT, 2 * RING_ENTRIES);
    expect_dirty(f, 2 * RING_ENTRIES);
    if (f->engine->ring_entries)
        assert_true(f->stats.exits[ENGINE_EXIT_DIRTY_RING] >= 1);
    kvm_engine.dirty_stop(f->engine);
}

/* ---- read-only memory ---- */

static void rom(void **state)
{
    struct fixture *f = fixture(state);
    uint32_t *host = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* mov eax,[ebx]; inc eax; mov [ebx+4],eax; mov ecx,[ebx+4]; hlt */
    static const uint8_t code[] = {0x8b, 0x03, 0x40, 0x89, 0x43, 0x04, 0x8b, 0x4b, 0x04, 0xf4};
    struct err err = {0};
    struct x86_state st;

    assert_true(host != MAP_FAILED);
    host[0] = 0x12345677;
    host[1] = 0xaaaa5555;
    assert_int_equal(kvm_engine.rom(f->engine, ROM_AT, host, 8192, &err), 0);
    run(f, code, sizeof(code), ROM_AT, 0);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.gpr[X86_RAX], 0x12345678);
    assert_int_equal(st.gpr[X86_RCX], 0xaaaa5555); /* as it was: the write is the bus's */
    assert_int_equal(host[1], 0xaaaa5555);
    assert_int_equal(f->written, 0x12345678);
    assert_int_equal(f->at, 4);
    assert_int_equal(f->stats.exits[ENGINE_EXIT_MMIO_READ], 0);
    assert_true(kvm_engine.rom(f->engine, 0, host, 8192, &err) < 0); /* RAM is there */
    munmap(host, 8192);
}

static unsigned ring = RING_ENTRIES;

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"dirty_pages by bitmap", dirty_pages, setup, teardown, NULL},
        {"dirty_pages by ring", dirty_pages, setup, teardown, &ring},
        {"many_dirty_pages by bitmap", many_dirty_pages, setup, teardown, NULL},
        {"many_dirty_pages by ring", many_dirty_pages, setup, teardown, &ring},
        {"rom", rom, setup, teardown, NULL},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
