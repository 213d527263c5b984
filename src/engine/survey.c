#include "engine/survey.h"

#include <errno.h>
#include <time.h>

#define SURVEY_RAM  (64 * KIB)
#define SURVEY_TSC  UINT64_C(1000000000)
#define CODE_AT     0x1000
#define FIRST_COUNT (1u << 16)
#define LONG_ENOUGH INT64_C(5000000) /* ns */
#define LOOP_LENGTH 2                /* instructions */

/* 1: dec %ecx; jnz 1b; hlt */
static const uint8_t loop_code[] = {0x49, 0x75, 0xfd, 0xf4};

#define ENGINE(name, kind) extern const struct engine_type name##_engine;
#include "engine/engines.def"
#undef ENGINE

static const struct candidate {
    const char *name, *kind;
    const struct engine_type *type;
} candidates[] = {
#define ENGINE(name, kind) {#name, kind, &name##_engine},
#include "engine/engines.def"
#undef ENGINE
};

/* ---- a vCPU of an engine, with nothing around it ---- */

struct bench {
    struct ram ram;
    struct bus pio, mmio;
    struct clock clock;
    struct vcpu_port port;
    struct x86_cpuid cpuid;
    struct engine_stats stats;
    struct engine *engine;
    struct engine_vcpu *vcpu;
};

static int bench_open(struct bench *b, const struct engine_type *type, struct err *err)
{
    const struct x86_cpuid_conf cpuid = {.n_cpus = 1, .tsc_hz = SURVEY_TSC, .phys_bits = 40};
    const struct engine_vcpu_conf conf = {.ram = &b->ram,
                                          .pio = &b->pio,
                                          .mmio = &b->mmio,
                                          .port = &b->port,
                                          .clock = &b->clock,
                                          .cpuid = &b->cpuid,
                                          .stats = &b->stats};

    memset(b, 0, sizeof(*b));
    int r = ram_open(&b->ram, SURVEY_RAM, SURVEY_RAM, err);
    if (r < 0)
        return r;
    bus_init(&b->pio, NULL);
    bus_init(&b->mmio, NULL);
    clock_init(&b->clock, NULL, SURVEY_TSC); /* stands still, and needs no loop */
    x86_cpuid_init(&b->cpuid, &cpuid);
    r = type->open(&b->engine, &(struct engine_conf){.ram = &b->ram, .n_vcpus = 1}, err);
    if (r < 0)
        goto close_ram;
    r = type->vcpu_open(b->engine, &conf, &b->vcpu, err);
    if (r < 0)
        goto close_engine;
    return 0;

close_engine:
    type->close(b->engine);
close_ram:
    clock_fini(&b->clock);
    bus_fini(&b->mmio);
    bus_fini(&b->pio);
    ram_close(&b->ram);
    return r;
}

static void bench_close(struct bench *b, const struct engine_type *type)
{
    type->vcpu_close(b->vcpu);
    type->close(b->engine);
    clock_fini(&b->clock);
    bus_fini(&b->mmio);
    bus_fini(&b->pio);
    ram_close(&b->ram);
}

static struct x86_seg flat(uint16_t sel, uint16_t type)
{
    return (struct x86_seg){
        .sel = sel, .limit = UINT32_MAX, .attr = X86_SEG_P | X86_SEG_S | X86_SEG_DB | X86_SEG_G | type};
}

/* 32-bit protected mode, ring 0, `count` times round the loop. */
static void set_state(struct bench *b, const struct engine_type *type, uint32_t count)
{
    struct x86_state st;

    x86_state_reset(&st, true);
    st.cr0 = X86_CR0_PE | X86_CR0_ET;
    st.rip = CODE_AT;
    st.gpr[X86_RCX] = count;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st.seg[i] = flat(0x10, X86_SEG_WRITE | X86_SEG_ACCESSED);
    st.seg[X86_CS] = flat(0x08, X86_SEG_CODE | X86_SEG_WRITE | X86_SEG_ACCESSED);
    type->set(b->vcpu, &st);
}

static int64_t cpu_time(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* Twice as often round the loop until it takes long enough to be measured. */
static int measure(struct bench *b, const struct engine_type *type, uint64_t *rate, struct err *err)
{
    int64_t took = 0;
    uint32_t count;

    for (count = FIRST_COUNT / 2; took < LONG_ENOUGH && count < 1u << 31;) {
        count *= 2;
        set_state(b, type, count);
        int64_t start = cpu_time();
        if (type->run(b->vcpu, 0) != ENGINE_HALT)
            return err_set(err, -EIO, "a loop in ring 0 did not come to its end");
        took = cpu_time() - start;
    }
    *rate = (uint64_t)((unsigned __int128)count * LOOP_LENGTH * NS_PER_SEC / (uint64_t)(took > 0 ? took : 1));
    return 0;
}

static int measure_engine(const struct engine_type *type, uint64_t *rate, struct err *err)
{
    struct bench b;
    int r = bench_open(&b, type, err);

    if (r < 0)
        return r;
    r = ram_write(&b.ram, CODE_AT, loop_code, sizeof(loop_code));
    if (r == 0)
        r = measure(&b, type, rate, err);
    bench_close(&b, type);
    return r;
}

/* ---- */

static bool usable(const struct candidate *c, struct survey *s)
{
    if (c->type->probe(&s->rate, &s->reason) < 0)
        return false;
    return s->rate || measure_engine(c->type, &s->rate, &s->reason) == 0;
}

size_t survey_engines(struct survey *found, size_t max)
{
    size_t n = max < ARRAY_SIZE(candidates) ? max : ARRAY_SIZE(candidates);
    const struct engine_type *preferred = engine_find("auto", NULL);

    for (size_t i = 0; i < n; i++) {
        found[i] = (struct survey){.name = candidates[i].name, .kind = candidates[i].kind};
        found[i].preferred = preferred && candidates[i].type == preferred;
        found[i].usable = usable(&candidates[i], &found[i]);
    }
    return n;
}
