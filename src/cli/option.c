#include "cli/option.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "base/number.h"
#include "cli/trace.h"
#include "console/console.h"
#include "control/control.h"
#include "engine/engine.h"
#include "gdb/gdb_stub.h"
#include "machine/machine.h"

#define MAX_SECONDS           1000000000
#define LOCKSTEP_MEMORY_EVERY 50000000 /* a tenth of a second of comparing in ten of running */

static const char engine_list[] = "auto"
#define ENGINE(name, kind) "|" #name
#define HOST(name, kind, probe)
#include "engine/engines.def"
#undef ENGINE
#undef HOST
    ;

static const char console_list[] = ""
#define CONSOLE(name, open, arg, help) "|" #name arg
#include "console/console.def"
#undef CONSOLE
    ;

static const char cpu_list[] = ""
#define MODEL(level, name, signature) "|" name
#include "x86/cpu_models.def"
#undef MODEL
    ;

const char *option_argument(const struct option_spec *spec)
{
    switch (spec->kind) {
    case OPTION_ENGINE:
        return engine_list;
    case OPTION_CONSOLE:
        return console_list + 1; /* behind the first bar */
    case OPTION_CPU:
        return cpu_list + 1;
    case OPTION_GDB:
        return GDB_STUB_ARGUMENT;
    case OPTION_TRACE:
        return TRACE_KINDS;
    case OPTION_FLAG:
        return NULL;
    default:
        return spec->argument;
    }
}

static int parse_size(const struct option_spec *spec, const char *text, uint64_t *bytes, struct err *err)
{
    if (!number_size(text, bytes) || *bytes < MACHINE_RAM_LEAST || *bytes > MACHINE_RAM_MOST || *bytes % RAM_PAGE_SIZE)
        return err_set(err, -EINVAL,
                       "--%s '%.100s': accepted is a size from " MACHINE_RAM_RANGE
                       " in bytes (whole pages of 4096) or with a "
                       "suffix K, M, G or T, such as 512M",
                       spec->name, text);
    return 0;
}

static int parse_code_size(const struct option_spec *spec, const char *text, uint64_t *bytes, struct err *err)
{
    if (!number_size(text, bytes) || *bytes < ENGINE_CODE_CACHE_LEAST || *bytes > ENGINE_CODE_CACHE_MOST)
        return err_set(
            err, -EINVAL,
            "--%s '%.100s': accepted is a size from 1M to 4G in bytes or with a suffix K, M or G, such as 32M",
            spec->name, text);
    return 0;
}

static int parse_count(const struct option_spec *spec, const char *text, unsigned *count, struct err *err)
{
    const char *p = text;
    uint64_t n;

    if (!number_take(&p, &n) || *p || n < 1 || n > VM_MAX_VCPUS)
        return err_set(err, -EINVAL, "--%s '%.100s': accepted is a whole number from 1 to %d", spec->name, text,
                       VM_MAX_VCPUS);
    *count = (unsigned)n;
    return 0;
}

static int parse_bytes(const struct option_spec *spec, const char *text, uint64_t *bytes, struct err *err)
{
    if (number_size(text, bytes))
        return 0;
    return err_set(err, -EINVAL,
                   "--%s '%.100s': accepted is a size in bytes or with a suffix K, M, G or T, such as 10G", spec->name,
                   text);
}

static int parse_number(const struct option_spec *spec, const char *text, uint64_t *value, struct err *err)
{
    const char *p = text;

    if (number_take(&p, value) && !*p)
        return 0;
    return err_set(err, -EINVAL, "--%s '%.100s': accepted is a whole number", spec->name, text);
}

static int parse_choice(const struct option_spec *spec, const char *text, int *value, struct err *err)
{
    const char *list = option_argument(spec);
    size_t len = strlen(text);

    for (*value = 0; *list; ++*value) {
        size_t n = strcspn(list, "|");
        if (n == len && memcmp(text, list, n) == 0)
            return 0;
        list += n + (list[n] == '|');
    }
    return err_set(err, -EINVAL, "--%s '%.100s': accepted is %s", spec->name, text, option_argument(spec));
}

/* "90" or "0.5". */
static int parse_seconds(const struct option_spec *spec, const char *text, int64_t *ns, struct err *err)
{
    const char *p = text;
    uint64_t seconds = 0;
    int64_t fraction = 0;

    bool ok = number_take(&p, &seconds) && seconds <= MAX_SECONDS;
    if (ok && *p == '.') {
        ok = isdigit((unsigned char)*++p);
        for (int64_t unit = NS_PER_SEC / 10; isdigit((unsigned char)*p); p++, unit /= 10)
            fraction += unit * (*p - '0');
    }
    *ns = ok ? (int64_t)seconds * NS_PER_SEC + fraction : 0;
    if (!ok || *p || *ns == 0)
        return err_set(err, -EINVAL, "--%s '%.100s': accepted is a number of seconds above 0 and up to %d, such as 30",
                       spec->name, text, MAX_SECONDS);
    return 0;
}

static bool is_engine(const char *name, size_t n)
{
    const char *list = engine_list;

    while (*list) {
        size_t len = strcspn(list, "|");
        if (n == len && memcmp(name, list, len) == 0)
            return true;
        list += len + (list[len] == '|');
    }
    return false;
}

static int parse_engine(const struct option_spec *spec, const char *text, struct err *err)
{
    if (is_engine(text, strlen(text)))
        return 0;
    return err_set(err, -EINVAL, "--%s '%.100s': accepted is %s", spec->name, text, engine_list);
}

/* One of the words behind the engine's name; false: none of them, or not with that value. */
static bool parse_lockstep_word(const struct option_spec *spec, const char *word, struct option_lockstep *lockstep)
{
    uint64_t n = 0;

    const char *value = strchr(word, '=');
    if (!value)
        return false;
    size_t len = (size_t)(value++ - word);
    if (len == 4 && memcmp(word, "from", len) == 0)
        return parse_seconds(spec, value, &lockstep->from_ns, NULL) == 0;
    if (!number_take(&value, &n) || *value || n < 1)
        return false;
    if (len == 6 && memcmp(word, "memory", len) == 0)
        lockstep->memory_every = n;
    else if (len == 5 && memcmp(word, "every", len) == 0 && n <= UINT32_MAX)
        lockstep->every = (unsigned)n;
    else
        return false;
    return true;
}

static int parse_lockstep(const struct option_spec *spec, const char *text, struct option_lockstep *lockstep,
                          struct err *err)
{
    size_t len = strcspn(text, ",");
    char words[128];
    char *next = words, *word;

    *lockstep = (struct option_lockstep){.every = 1, .memory_every = LOCKSTEP_MEMORY_EVERY};
    bool ok = len < sizeof(lockstep->follower) && is_engine(text, len) && strlen(text) < sizeof(words);
    if (ok) {
        memcpy(lockstep->follower, text, len);
        snprintf(words, sizeof(words), "%s", text + len + (text[len] == ','));
    }
    while (ok && (word = strsep(&next, ",")))
        ok = (!*word && !text[len]) || parse_lockstep_word(spec, word, lockstep);
    if (!ok)
        return err_set(err, -EINVAL,
                       "--%s '%.100s': accepted is %s, and behind it any of ,every=BLOCKS ,memory=INSTRUCTIONS "
                       ",from=SECONDS",
                       spec->name, text, engine_list);
    return 0;
}

static int add_item(const struct option_spec *spec, const char *text, struct option_list *list, struct err *err)
{
    if (list->n == OPTION_LIST_MAX)
        return err_set(err, -E2BIG, "%s%s '%.100s': accepted are up to %d of them",
                       spec->kind == OPTION_WORDS ? "" : "--", spec->name, text, OPTION_LIST_MAX);
    list->items[list->n++] = text;
    return 0;
}

static int parse_value(const struct option_spec *spec, const char *text, void *values, struct err *err)
{
    void *at = (char *)values + spec->offset;
    int r = 0, index;

    switch (spec->kind) {
    case OPTION_SIZE:
        return parse_size(spec, text, at, err);
    case OPTION_CODE_SIZE:
        return parse_code_size(spec, text, at, err);
    case OPTION_COUNT:
        return parse_count(spec, text, at, err);
    case OPTION_BYTES:
        return parse_bytes(spec, text, at, err);
    case OPTION_NUMBER:
        return parse_number(spec, text, at, err);
    case OPTION_CHOICE:
        return parse_choice(spec, text, at, err);
    case OPTION_CPU:
        r = parse_choice(spec, text, &index, err);
        *(enum x86_cpu_model *)at = (enum x86_cpu_model)index;
        return r;
    case OPTION_SECONDS:
        return parse_seconds(spec, text, at, err);
    case OPTION_TRACE:
        *(unsigned *)at = trace_parse(text);
        if (!*(unsigned *)at)
            r = err_set(err, -EINVAL, "--%s '%.100s': accepted is " TRACE_KINDS ", or several with commas between",
                        spec->name, text);
        return r;
    case OPTION_LOCKSTEP:
        return parse_lockstep(spec, text, at, err);
    case OPTION_FLAG:
        *(bool *)at = true;
        return 0;
    case OPTION_FILE:
    case OPTION_OUTPUT:
        if (!*text)
            r = err_set(err, -EINVAL, "--%s '': accepted is the path of a file", spec->name);
        break;
    case OPTION_CONSOLE:
        r = console_check(text, NULL);
        if (r < 0)
            err_set(err, r, "--%s '%.100s': accepted is %s", spec->name, text, option_argument(spec));
        break;
    case OPTION_GDB:
        r = gdb_stub_check(text, err);
        if (r < 0)
            err_prefix(err, "--%s", spec->name);
        break;
    case OPTION_ENGINE:
        r = parse_engine(spec, text, err);
        break;
    case OPTION_CONTROL:
        r = control_check(text, err);
        if (r < 0)
            err_prefix(err, "--%s", spec->name);
        break;
    case OPTION_ATTACH:
        r = attach_check(spec->name, text, err);
        return r < 0 ? r : add_item(spec, text, at, err);
    case OPTION_LIST:
    case OPTION_WORDS:
        return add_item(spec, text, at, err);
    case OPTION_TEXT:
        break;
    }
    if (r == 0)
        *(const char **)at = text;
    return r;
}

static const struct option_spec *find(const struct option_table *table, const char *name, size_t len)
{
    for (size_t i = 0; i < table->n; i++)
        if (table->specs[i].kind != OPTION_WORDS && strlen(table->specs[i].name) == len &&
            memcmp(table->specs[i].name, name, len) == 0)
            return &table->specs[i];
    return NULL;
}

static const struct option_spec *find_words(const struct option_table *table)
{
    for (size_t i = 0; i < table->n; i++)
        if (table->specs[i].kind == OPTION_WORDS)
            return &table->specs[i];
    return NULL;
}

static int unknown(const struct option_table *table, const char *name, size_t len, struct err *err)
{
    const char *names[64];
    char word[64];

    snprintf(word, sizeof(word), "%.*s", (int)(len < sizeof(word) ? len : sizeof(word) - 1), name);
    size_t n = table->n < ARRAY_SIZE(names) ? table->n : ARRAY_SIZE(names);
    for (size_t i = 0; i < n; i++)
        names[i] = table->specs[i].name;
    const char *near = option_nearest(word, names, n);
    if (near)
        return err_set(err, -EINVAL, "--%s: no such option; did you mean --%s?", word, near);
    return err_set(err, -EINVAL, "--%s: no such option; --help lists them", word);
}

int option_parse(const struct option_table *table, int argc, char **argv, void *values, bool *help, struct err *err)
{
    *help = false;
    for (int i = 0; i < argc; i++)
        *help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    if (*help)
        return 0;
    for (size_t i = 0; i < table->n; i++) {
        int r = table->specs[i].fallback ? parse_value(&table->specs[i], table->specs[i].fallback, values, err) : 0;
        if (r < 0)
            return r;
    }
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        const struct option_spec *words = find_words(table);
        if (words && strncmp(word, "--", 2) != 0) {
            int r = parse_value(words, word, values, err);
            if (r < 0)
                return r;
            continue;
        }
        if (strncmp(word, "--", 2) != 0 || !word[2])
            return err_set(err, -EINVAL, "'%.100s': accepted are options, which begin with --; --help lists them",
                           word);
        const char *name = word + 2, *equals = strchr(name, '=');
        size_t len = equals ? (size_t)(equals - name) : strlen(name);
        const struct option_spec *spec = find(table, name, len);
        if (!spec)
            return unknown(table, name, len, err);
        bool flag = spec->kind == OPTION_FLAG;
        if (flag && equals)
            return err_set(err, -EINVAL, "--%s '%.100s': the option takes no value", spec->name, equals + 1);
        if (!flag && !equals && i + 1 == argc)
            return err_set(err, -EINVAL, "--%s: the value is missing; accepted is %s", spec->name,
                           option_argument(spec));
        const char *text = equals ? equals + 1 : flag ? NULL : argv[++i];
        int r = parse_value(spec, text, values, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* How many letters must be put in, taken out, changed or swapped with their neighbour; words beyond 31 letters are far from all. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[3][32];
    size_t n = strlen(a), m = strlen(b);

    if (n > 31 || m > 31)
        return 32;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = row[i % 3], *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *option_nearest(const char *word, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    unsigned best = 3; /* two slips at most */

    for (size_t i = 0; i < n; i++) {
        unsigned d = distance(word, names[i]);
        if (d < best && d < strlen(names[i]) - 1) {
            best = d;
            nearest = names[i];
        }
    }
    /* Or the start of one, long enough to mean it. */
    for (size_t i = 0; i < n && !nearest; i++)
        if (strlen(word) >= 3 && strncmp(word, names[i], strlen(word)) == 0)
            nearest = names[i];
    return nearest;
}
