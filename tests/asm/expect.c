#include "expect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Where common.inc keeps its records. */
#define REC       0x6000
#define REC_FIRST 0x6020
#define REC_SIZE  32

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const seg_names[] = {"es", "cs", "ss", "ds", "fs", "gs"};

static bool read_memory(const struct ram *ram, uint64_t gpa, unsigned len, uint64_t *val)
{
    *val = 0;
    return len <= 8 && ram_read(ram, gpa, val, len) == 0;
}

static bool read_record(const struct ram *ram, const char *key, uint64_t *val)
{
    static const struct {
        const char *name;
        unsigned offset, len;
    } fields[] = {{"", 0, 4}, {".error", 4, 4}, {".at", 8, 8}, {".cr2", 16, 8}, {".flags", 24, 8}};
    char *end;

    if (strcmp(key, "n_exc") == 0)
        return read_memory(ram, REC, 4, val);
    if (strncmp(key, "exc", 3) != 0)
        return false;
    unsigned long n = strtoul(key + 3, &end, 10);
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (strcmp(end, fields[i].name) == 0)
            return read_memory(ram, REC_FIRST + REC_SIZE * n + fields[i].offset, fields[i].len, val);
    return false;
}

static bool read_key(const struct ram *ram, const struct x86_state *st, const char *key, uint64_t *val)
{
    const struct {
        const char *name;
        uint64_t val;
    } others[] = {{"rflags", st->rflags}, {"rip", st->rip},   {"cr0", st->cr0},   {"cr2", st->cr2},
                  {"cr3", st->cr3},       {"cr4", st->cr4},   {"efer", st->efer}, {"dr0", st->dr[0]},
                  {"dr1", st->dr[1]},     {"dr2", st->dr[2]}, {"dr3", st->dr[3]}, {"dr6", st->dr6},
                  {"dr7", st->dr7},       {"tr", st->tr.sel}};
    unsigned bits;
    uint64_t addr;

    for (size_t i = 0; i < ARRAY_SIZE(gpr_names); i++)
        if (strcmp(key, gpr_names[i]) == 0) {
            *val = st->gpr[i];
            return true;
        }
    for (size_t i = 0; i < ARRAY_SIZE(seg_names); i++)
        if (strcmp(key, seg_names[i]) == 0) {
            *val = st->seg[i].sel;
            return true;
        }
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        if (strcmp(key, others[i].name) == 0) {
            *val = others[i].val;
            return true;
        }
    if (sscanf(key, "mem%u[%" SCNi64 "]", &bits, (int64_t *)&addr) == 2)
        return read_memory(ram, addr, bits / 8, val);
    return read_record(ram, key, val);
}

static int parse_one(struct expects *expects, char *token)
{
    struct expect e = {.mask = UINT64_MAX};
    char *eq = strchr(token, '='), *end;

    if (!eq)
        return -EINVAL;
    *eq = '\0';
    if (strcmp(token, "end") == 0) {
        expects->end = strcmp(eq + 1, "shutdown") == 0 ? ENGINE_SHUTDOWN : ENGINE_HALT;
        return 0;
    }
    char *amp = strchr(token, '&');
    if (amp) {
        *amp = '\0';
        e.mask = strtoull(amp + 1, &end, 0);
    }
    if (snprintf(e.key, sizeof(e.key), "%s", token) >= (int)sizeof(e.key))
        return -EINVAL;
    e.value = strtoull(eq + 1, &end, 0);
    if (*end == ':') {
        e.has_value2 = true;
        e.value2 = strtoull(end + 1, &end, 0);
    }
    if (*end)
        return -EINVAL;
    struct expect *list = realloc(expects->list, (expects->n + 1) * sizeof(*list));
    if (!list)
        return -ENOMEM;
    expects->list = list;
    expects->list[expects->n++] = e;
    return 0;
}

int expect_read(struct expects *expects, const char *path, struct err *err)
{
    char line[1024], *save;
    int r = 0;

    *expects = (struct expects){.n_cpus = 1, .end = ENGINE_HALT};
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(err, -errno, "%s: cannot be opened", path);
    while (!r && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "//- cpus: %u", &expects->n_cpus) == 1 || sscanf(line, "//- cpu: %31s", expects->cpu) == 1)
            continue;
        if (strncmp(line, "//=", 3) != 0)
            continue;
        for (char *t = strtok_r(line + 3, " \t\n", &save); t && !r; t = strtok_r(NULL, " \t\n", &save))
            if (parse_one(expects, t))
                r = err_set(err, -EINVAL, "%s: '%s' is no expectation", path, t);
    }
    fclose(f);
    if (!r && !expects->n && expects->end == ENGINE_HALT)
        r = err_set(err, -EINVAL, "%s: it expects nothing", path);
    if (r)
        expect_free(expects);
    return r;
}

void expect_free(struct expects *expects)
{
    free(expects->list);
    expects->list = NULL;
}

unsigned expect_check(const struct expects *expects, const struct ram *ram, const struct x86_state *st,
                      enum engine_exit end)
{
    unsigned wrong = 0;

    if (end != expects->end) {
        printf("# the engine returned %d, expected %d\n", end, expects->end);
        wrong++;
    }
    for (size_t i = 0; i < expects->n; i++) {
        const struct expect *e = &expects->list[i];
        char key[48];
        uint64_t val, val2 = e->value2;
        if (!read_key(ram, st, e->key, &val)) {
            printf("# %s: no such key\n", e->key);
            wrong++;
            continue;
        }
        snprintf(key, sizeof(key), "%s.error", e->key);
        if (e->has_value2 && !read_record(ram, key, &val2))
            val2 = ~e->value2;
        if ((val & e->mask) == (e->value & e->mask) && val2 == e->value2)
            continue;
        printf("# %s: got %#" PRIx64, e->key, val & e->mask);
        if (e->has_value2)
            printf(":%#" PRIx64 ", expected %#" PRIx64 ":%#" PRIx64 "\n", val2, e->value, e->value2);
        else
            printf(", expected %#" PRIx64 "\n", e->value);
        wrong++;
    }
    return wrong;
}
