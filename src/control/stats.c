#include "control/stats.h"

#include <stdio.h>
#include <stdlib.h>

#include "control/footprint.h"

static const char *const end_names[] = {
    [VM_RUNNING] = "running", [VM_END_OFF] = "off",         [VM_END_RESET] = "reset", [VM_END_CRASH] = "crash",
    [VM_END_DEBUG] = "debug", [VM_END_TIMEOUT] = "timeout", [VM_END_QUIT] = "quit",   [VM_END_FAIL] = "fail",
};

static void put(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *exits(const uint64_t counts[ENGINE_N_EXITS])
{
    json_t *object = json_object();

    for (int i = 0; i < ENGINE_N_EXITS; i++)
        put(object, engine_exit_names[i], counts[i]);
    return object;
}

/*
 * The time by reason: of HLT until something woke the vCPU, on every engine; of others as the engine measures them. KVM does for each exit, the
 * others take samples of accesses to devices, and nothing of the rest: then there is no figure.
 */
static json_t *exit_times(const int64_t ns[ENGINE_N_EXITS], int64_t halted_ns)
{
    json_t *object = json_object();

    for (int i = 0; i < ENGINE_N_EXITS; i++) {
        int64_t all = ns[i] + (i == ENGINE_EXIT_HLT ? halted_ns : 0);
        if (all > 0)
            put(object, engine_exit_names[i], (uint64_t)all);
    }
    return object;
}

/* Where a vCPU's time went: in the guest's instructions, making code of them, interpreting some, in devices, waiting in HLT. */
static json_t *time_of(const uint64_t *translator, int64_t run_ns, int64_t device_ns, int64_t halted_ns)
{
    json_t *object = json_object();
    uint64_t translate = translator[ENGINE_TRANSLATOR_TRANSLATOR_NS];
    uint64_t interpret = translator[ENGINE_TRANSLATOR_INTERPRETER_NS];
    int64_t guest = run_ns - device_ns - (int64_t)(translate + interpret);

    put(object, "guest", (uint64_t)(guest > 0 ? guest : 0));
    put(object, "translator", translate);
    put(object, "interpreter", interpret);
    put(object, "device", (uint64_t)device_ns);
    put(object, "halted", (uint64_t)halted_ns);
    return object;
}

static void put_rate(json_t *object, const char *key, uint64_t all, uint64_t missed)
{
    if (all)
        json_object_set_new(object, key, json_real(missed < all ? (double)(all - missed) / (double)all : 0));
}

/* Rates only where generated code has counted (--profile). */
static json_t *translator(const uint64_t *counts)
{
    json_t *object = json_object();

    for (int i = 0; i < ENGINE_TRANSLATOR_TRANSLATOR_NS; i++)
        put(object, engine_translator_names[i], counts[i]);
    if (!counts[ENGINE_TRANSLATOR_ENTRIES])
        return object;
    for (int i = ENGINE_TRANSLATOR_TLB_LOOKUPS; i < ENGINE_N_TRANSLATOR; i++)
        put(object, engine_translator_names[i], counts[i]);
    put_rate(object, "tlb_hit_rate", counts[ENGINE_TRANSLATOR_TLB_LOOKUPS], counts[ENGINE_TRANSLATOR_TLB_MISSES]);
    put_rate(object, "jump_cache_hit_rate", counts[ENGINE_TRANSLATOR_JUMPS] + counts[ENGINE_TRANSLATOR_JUMP_MISSES],
             counts[ENGINE_TRANSLATOR_JUMP_MISSES]);
    put_rate(object, "chained_rate", counts[ENGINE_TRANSLATOR_ENTRIES],
             counts[ENGINE_TRANSLATOR_JUMPS] + counts[ENGINE_TRANSLATOR_JUMP_MISSES] + counts[ENGINE_TRANSLATOR_LINKS]);
    return object;
}

/* Instructions that a translating engine interpreted, by mnemonic: the most frequent of each vCPU. */
static json_t *interpreted(const struct vm *vm, enum engine_interpreted why)
{
    json_t *object = json_object();

    for (unsigned i = 0; i < vm->conf.n_vcpus; i++) {
        const struct engine_count *count = vm->vcpus[i]->stats.interpreted[why];
        for (unsigned j = 0; j < ENGINE_N_COUNTS && count[j].mnemonic; j++) {
            const json_t *others = json_object_get(object, count[j].mnemonic);
            put(object, count[j].mnemonic, count[j].n + (uint64_t)json_integer_value(others));
        }
    }
    return object;
}

static void add_figure(void *opaque, const char *name, uint64_t value)
{
    put(opaque, name, (uint64_t)json_integer_value(json_object_get(opaque, name)) + value);
}

/* What the host's kernel counts of its own, all vCPUs together: exits that it answers by itself are there alone. NULL: it does not. */
static json_t *kernel_figures(const struct vm *vm)
{
    const struct engine_type *engine = vm->conf.engine;
    json_t *object = json_object();

    for (unsigned i = 0; engine->figures && i < vm->conf.n_vcpus; i++)
        engine->figures(vm->vcpus[i]->engine_vcpu, &(struct engine_figures){.put = add_figure, .opaque = object});
    if (json_object_size(object))
        return object;
    json_decref(object);
    return NULL;
}

static json_t *vcpus(const struct vm *vm)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < vm->conf.n_vcpus; i++) {
        const struct vcpu *vcpu = vm->vcpus[i];
        json_t *object = json_object();
        put(object, "instructions", vcpu->stats.instructions);
        json_object_set_new(object, "exits", exits(vcpu->stats.exits));
        json_object_set_new(object, "exits_ns", exit_times(vcpu->stats.exit_ns, vcpu->halted_ns));
        json_object_set_new(object, "time_ns",
                            time_of(vcpu->stats.translator, vcpu->run_ns, vcpu->stats.device_ns, vcpu->halted_ns));
        json_array_append_new(array, object);
    }
    return array;
}

/* A line of /proc/self/status, such as "VmHWM:   1234 kB", in bytes. */
static uint64_t process_bytes(const char *field)
{
    char line[256];
    unsigned long long kib, found = 0;
    FILE *status = fopen("/proc/self/status", "re");

    if (!status)
        return 0;
    while (fgets(line, sizeof(line), status))
        if (strncmp(line, field, strlen(field)) == 0 && sscanf(line + strlen(field), ": %llu kB", &kib) == 1)
            found = kib * KIB;
    fclose(status);
    return found;
}

static uint64_t own_bytes(void)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");

    if (!smaps)
        return 0;
    uint64_t own = footprint_read(smaps).own;
    fclose(smaps);
    return own;
}

/*
 * peak: the whole process at its largest, guest pages included, a page mapped twice counted twice; guest: pages of guest RAM backed at
 * the end; own: all else the process has at the end, each page once, the code cache too; files: resident of the program's and its
 * libraries' files, of which own has this process's share.
 */
static json_t *memory(const struct vm *vm)
{
    json_t *object = json_object();

    put(object, "peak", process_bytes("VmHWM"));
    put(object, "guest", ram_resident(&vm->ram));
    put(object, "own", own_bytes());
    put(object, "files", process_bytes("RssFile"));
    return object;
}

static void put_number(void *opaque, const char *key, uint64_t value)
{
    put(opaque, key, value);
}

static void put_text(void *opaque, const char *key, const char *value)
{
    json_object_set_new(opaque, key, json_string(value));
}

json_t *stats_attachment(struct attachment *a)
{
    json_t *object = json_object();

    json_object_set_new(object, "id", json_string(a->id));
    json_object_set_new(object, "kind", json_string(a->kind->name));
    put(object, "slot", a->slot);
    if (a->asked)
        json_object_set_new(object, "leaving", json_true());
    if (a->kind->figures)
        a->kind->figures(a->dev, &(struct attach_figures){.number = put_number, .text = put_text, .opaque = object});
    return object;
}

static json_t *attachments(const struct machine *m)
{
    json_t *array = json_array();

    for (struct attachment *a = m->attachments; a; a = a->next)
        json_array_append_new(array, stats_attachment(a));
    return array;
}

json_t *stats_get(struct machine *m)
{
    const struct vm *vm = &m->vm;
    uint64_t counts[ENGINE_N_EXITS] = {0}, instructions = 0;
    uint64_t translated[ENGINE_N_TRANSLATOR] = {0};
    int64_t run_ns = 0, device_ns = 0, halted_ns = 0, exit_ns[ENGINE_N_EXITS] = {0};
    int64_t ended_ns = vm->ended_ns ? vm->ended_ns : loop_now();
    json_t *root = json_object();

    for (unsigned i = 0; i < vm->conf.n_vcpus; i++) {
        const struct vcpu *vcpu = vm->vcpus[i];
        for (int j = 0; j < ENGINE_N_EXITS; j++)
            counts[j] += vcpu->stats.exits[j];
        for (int j = 0; j < ENGINE_N_EXITS; j++)
            exit_ns[j] += vcpu->stats.exit_ns[j];
        for (int j = 0; j < ENGINE_N_TRANSLATOR; j++)
            translated[j] += vcpu->stats.translator[j];
        instructions += vcpu->stats.instructions;
        run_ns += vcpu->run_ns;
        device_ns += vcpu->stats.device_ns;
        halted_ns += vcpu->halted_ns;
    }
    json_object_set_new(root, "engine", json_string(vm->conf.engine->name));
    put(root, "cpus", vm->conf.n_vcpus);
    put(root, "ram", vm->conf.ram_size);
    json_object_set_new(root, "end", json_string(end_names[vm->end]));
    put(root, "wall_ns", (uint64_t)(ended_ns - vm->started_ns));
    put(root, "instructions", instructions);
    json_object_set_new(root, "exits", exits(counts));
    json_object_set_new(root, "exits_ns", exit_times(exit_ns, halted_ns));
    json_t *kernel = kernel_figures(vm);
    if (kernel)
        json_object_set_new(root, "kernel", kernel);
    json_object_set_new(root, "untranslated", interpreted(vm, ENGINE_UNTRANSLATED));
    json_object_set_new(root, "slow", interpreted(vm, ENGINE_SLOW));
    json_object_set_new(root, "translator", translator(translated));
    json_object_set_new(root, "time_ns", time_of(translated, run_ns, device_ns, halted_ns));
    json_object_set_new(root, "memory_bytes", memory(vm));
    json_object_set_new(root, "vcpus", vcpus(vm));
    json_object_set_new(root, "devices", attachments(m));
    return root;
}

#define TABLE_ROOM 4096

static void put_row(char *text, const char *name, json_int_t n, const json_t *ns)
{
    size_t len = strlen(text);
    double ms = (double)json_integer_value(ns) / 1e6;

    if (ns && n)
        snprintf(text + len, TABLE_ROOM - len, "%-18s %12lld %12.3f %12.3f\n", name, (long long)n, ms,
                 ms * 1e3 / (double)n);
    else
        snprintf(text + len, TABLE_ROOM - len, "%-18s %12lld %12s %12s\n", name, (long long)n, "-", "-");
}

char *stats_exits_text(const json_t *stats)
{
    const json_t *counts = json_object_get(stats, "exits"), *times = json_object_get(stats, "exits_ns");
    char *text = calloc(1, TABLE_ROOM);

    if (!text)
        return NULL;
    snprintf(text, TABLE_ROOM, "%-18s %12s %12s %12s\n", "VM exit", "count", "ms", "us each");
    for (int i = 0; i < ENGINE_N_EXITS; i++) {
        json_int_t n = json_integer_value(json_object_get(counts, engine_exit_names[i]));
        if (n)
            put_row(text, engine_exit_names[i], n, json_object_get(times, engine_exit_names[i]));
    }
    const json_t *all = json_object_get(json_object_get(stats, "kernel"), "exits");
    if (all)
        put_row(text, "all, by the kernel", json_integer_value(all), NULL);
    return text;
}
