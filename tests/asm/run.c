/*
 * run - the assembler corpus on an engine, as TAP.
 *
 *   run [--engine NAME] SOURCEDIR IMAGE...
 *
 * Each image (NAME.bin) starts as a multiboot kernel does: flat 32-bit protected mode, no paging. NAME.S in the source directory says
 * what to expect at the end, which is HLT with interrupts off, or a triple fault. One that says `//- cpu: NAME` runs on that model. One that says `//- cpus: N` runs on N vCPUs with local
 * APICs, and writes to port 0xf4 at its end.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "box/box.h"
#include "expect.h"
#include "smp.h"

#define LOAD_ADDR 0xa000
#define ENTRY_OFF 28 /* in the multiboot header */
#define RAM_SIZE  (64 * MIB)
#define MAX_MS    10000
#define SMP_MS    120000 /* vCPUs that wait for each other, and perhaps share a CPU of the host */
#define MAX_IMAGE (0x10000 - LOAD_ADDR)

static struct x86_seg flat(uint16_t sel, uint16_t type)
{
    return (struct x86_seg){
        .sel = sel, .limit = UINT32_MAX, .attr = X86_SEG_P | X86_SEG_S | X86_SEG_DB | X86_SEG_G | type};
}

/* Multiboot specification 0.6.96, 3.2 */
static void start_state(struct x86_state *st, uint32_t entry)
{
    x86_state_reset(st, true);
    st->cr0 = X86_CR0_PE | X86_CR0_ET;
    st->rflags = X86_FLAG_FIXED;
    st->rip = entry;
    st->gpr[X86_RAX] = 0x2badb002;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = flat(0x10, 0x3);
    st->seg[X86_CS] = flat(0x08, 0xb);
}

static int load(struct ram *ram, const char *path, uint32_t *entry, struct err *err)
{
    static uint8_t image[MAX_IMAGE];

    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(err, -errno, "%s: cannot be opened", path);
    size_t n = fread(image, 1, sizeof(image), f);
    fclose(f);
    if (n < ENTRY_OFF + 4 || load_le32(image) != 0x1badb002)
        return err_set(err, -EINVAL, "%s: no image of a test", path);
    *entry = load_le32(image + ENTRY_OFF);
    if (ram_write(ram, LOAD_ADDR, image, n))
        return err_set(err, -ENOMEM, "%s: %zu bytes at %#x are not RAM", path, n, LOAD_ADDR);
    return 0;
}

/* The test's name: its path without directories and ".bin". */
static void name_of(const char *path, char *name, size_t len)
{
    const char *slash = strrchr(path, '/');

    snprintf(name, len, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot)
        *dot = '\0';
}

/* "": the host's. An unknown name is none, which no engine takes. */
static enum x86_cpu_model model_of(const char *name)
{
    enum x86_cpu_model model = X86_CPU_HOST;

    while (*name && model < X86_CPU_N_MODELS && strcmp(name, x86_cpuid_model_name(model)) != 0)
        model++;
    return model;
}

static void print_state(const struct x86_state *st)
{
    char text[8192];

    x86_state_print(st, text, sizeof(text));
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        printf("#   %s\n", line);
}

/* Whether it ends as its source expects. */
static bool run_alone(const char *engine, const char *image, const struct expects *expects, struct err *err)
{
    static struct x86_state st;
    struct box box;
    uint32_t entry = 0;
    bool ok = false;

    enum x86_cpu_model model = model_of(expects->cpu);

    if (model == X86_CPU_N_MODELS) {
        err_set(err, -EINVAL, "no model '%s'", expects->cpu);
        return false;
    }
    if (box_open_cpu(&box, engine, model, RAM_SIZE, err))
        return false;
    if (load(&box.ram, image, &entry, err))
        goto close_box;
    start_state(&st, entry);
    box.type->set(box.vcpu, &st);
    enum engine_exit end = box_run(&box, 0, MAX_MS);
    box.type->get(box.vcpu, &st);
    ok = expect_check(expects, &box.ram, &st, end) == 0;
    if (!ok)
        print_state(&st);
close_box:
    box_close(&box);
    return ok;
}

static bool run_smp(const char *engine, const char *image, const struct expects *expects, struct err *err)
{
    static struct x86_state start, st;
    struct smp smp;
    uint32_t entry = 0;
    bool ok = false;

    if (smp_open(&smp, engine, expects->n_cpus, RAM_SIZE, SMP_MS, err))
        return false;
    if (load(&smp.vm.ram, image, &entry, err))
        goto close_smp;
    start_state(&start, entry);
    enum engine_exit end = smp_run(&smp, &start, &st, err);
    ok = expect_check(expects, &smp.vm.ram, &st, end) == 0;
    for (unsigned i = 0; !ok && i < expects->n_cpus; i++) {
        vcpu_get_state(smp.vm.vcpus[i], &st);
        print_state(&st);
    }
close_smp:
    smp_close(&smp);
    return ok;
}

static bool run_one(const char *engine, const char *sources, const char *image)
{
    struct err err = {0};
    struct expects expects;
    char name[128], source[4096];
    bool ok = false;

    name_of(image, name, sizeof(name));
    snprintf(source, sizeof(source), "%s/%s.S", sources, name);
    if (expect_read(&expects, source, &err) == 0) {
        ok = (expects.n_cpus > 1 ? run_smp : run_alone)(engine, image, &expects, &err);
        expect_free(&expects);
    }
    if (err.msg[0])
        printf("# %s\n", err.msg);
    printf("%s - %s\n", ok ? "ok" : "not ok", name);
    return ok;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"engine", required_argument, NULL, 'e'}, {0}};
    const char *engine = "interp";
    int opt, failed = 0;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt != 'e') {
            fprintf(stderr, "usage: run [--engine NAME] SOURCEDIR IMAGE...\n");
            return 2;
        }
        engine = optarg;
    }
    if (argc - optind < 2) {
        fprintf(stderr, "usage: run [--engine NAME] SOURCEDIR IMAGE...\n");
        return 2;
    }
    const char *sources = argv[optind++];
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..%d\n", argc - optind);
    for (int i = optind; i < argc; i++)
        failed += !run_one(engine, sources, argv[i]);
    printf("# %d passed, %d failed\n", argc - optind - failed, failed);
    return failed != 0;
}
