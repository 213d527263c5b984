#include "base/keyval.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/number.h"

/*
 * Copies the next item to `out`, with doubled commas as one; *p behind it and its comma, but for one that nothing stands behind: that gives an
 * empty item. False when it is too long.
 */
static bool take_item(const char **p, char *out, size_t size)
{
    size_t n = 0;

    while (**p && !(**p == ',' && (*p)[1] != ',')) {
        if (n + 1 >= size)
            return false;
        *p += **p == ',';
        out[n++] = *(*p)++;
    }
    out[n] = '\0';
    *p += **p == ',' && (n == 0 || (*p)[1]);
    return true;
}

static int complain_unknown(const struct keyval_table *t, const char *word, struct err *err)
{
    char list[384] = "";

    for (size_t i = 0, at = 0; i < t->n && at < sizeof(list); i++) {
        const struct keyval_key *k = &t->keys[i];
        if (k->kind != KEYVAL_FIRST)
            at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s%s", at ? ", " : "", k->name,
                                   k->kind == KEYVAL_FLAG ? "" : "=");
    }
    return err_set(err, -EINVAL, "%s: '%.60s' is no key; accepted are %s", t->what, word, list);
}

static int parse_number(const struct keyval_table *t, const struct keyval_key *k, const char *text, uint64_t *out,
                        struct err *err)
{
    const char *p = text;
    uint64_t value;
    bool ok = k->kind == KEYVAL_SIZE ? number_size(text, &value) : number_take(&p, &value) && !*p;

    if (!ok || value < k->least || value > k->most)
        return err_set(err, -EINVAL, "%s: %s='%.100s': accepted is a number from %" PRIu64 " to %" PRIu64 "%s", t->what,
                       k->name, text, k->least, k->most,
                       k->kind == KEYVAL_SIZE ? ", also with a suffix K, M, G or T" : "");
    *out = value;
    return 0;
}

static int parse_choice(const struct keyval_table *t, const struct keyval_key *k, const char *choices, const char *text,
                        int *out, struct err *err)
{
    size_t len = strlen(text);
    int i = 0;

    for (const char *c = choices; *c; i++) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, text, n) == 0) {
            *out = i;
            return 0;
        }
        c += n + (c[n] == '|');
    }
    return err_set(err, -EINVAL, "%s: %s='%.100s': accepted is %s", t->what, k->name, text, choices);
}

static int parse_text(const struct keyval_table *t, const struct keyval_key *k, const char *text, char *out,
                      size_t size, struct err *err)
{
    size_t len = strlen(text);

    if (len == 0 || len >= size)
        return err_set(err, -EINVAL, "%s: %s='%.60s': accepted are 1 to %zu characters", t->what, k->name, text,
                       size - 1);
    memcpy(out, text, len + 1);
    return 0;
}

static int parse_value(const struct keyval_table *t, const struct keyval_key *k, const char *text, void *out,
                       struct err *err)
{
    struct keyval_list *list = out;
    int choice = 0, r;

    switch (k->kind) {
    case KEYVAL_FIRST:
    case KEYVAL_PATH:
        return parse_text(t, k, text, out, KEYVAL_PATH_MAX, err);
    case KEYVAL_TEXT:
        return parse_text(t, k, text, out, KEYVAL_TEXT_MAX, err);
    case KEYVAL_NUMBER:
    case KEYVAL_SIZE:
        return parse_number(t, k, text, out, err);
    case KEYVAL_CHOICE:
        return parse_choice(t, k, k->choices, text, out, err);
    case KEYVAL_SWITCH:
        r = parse_choice(t, k, "on|off", text, &choice, err);
        *(bool *)out = choice == 0;
        return r;
    case KEYVAL_LIST:
        if (list->n == KEYVAL_LIST_MAX)
            return err_set(err, -EINVAL, "%s: %s=: accepted is it up to %d times", t->what, k->name, KEYVAL_LIST_MAX);
        r = parse_text(t, k, text, list->items[list->n], KEYVAL_TEXT_MAX, err);
        list->n += r == 0;
        return r;
    default:
        *(bool *)out = true;
        return 0;
    }
}

static const struct keyval_key *find(const struct keyval_table *t, const char *name, size_t len)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->keys[i].kind != KEYVAL_FIRST && strlen(t->keys[i].name) == len &&
            memcmp(t->keys[i].name, name, len) == 0)
            return &t->keys[i];
    return NULL;
}

/* One "key=value" or "key". */
static int parse_item(const struct keyval_table *t, const char *item, uint64_t *seen, void *values, struct err *err)
{
    size_t len = strcspn(item, "=");
    const struct keyval_key *k = find(t, item, len);

    if (!k)
        return complain_unknown(t, item, err);
    if (k->kind == KEYVAL_FLAG && item[len])
        return err_set(err, -EINVAL, "%s: '%.100s': %s takes no value", t->what, item, k->name);
    if (k->kind != KEYVAL_FLAG && !item[len])
        return err_set(err, -EINVAL, "%s: '%.100s' needs a value: %s=...", t->what, item, k->name);
    uint64_t bit = UINT64_C(1) << (k - t->keys);
    if (*seen & bit && k->kind != KEYVAL_LIST)
        return err_set(err, -EINVAL, "%s: %s stands there twice", t->what, k->name);
    *seen |= bit;
    return parse_value(t, k, item[len] ? item + len + 1 : "", (char *)values + k->offset, err);
}

int keyval_parse(const struct keyval_table *t, const char *spec, void *values, struct err *err)
{
    const struct keyval_key *first = t->n && t->keys[0].kind == KEYVAL_FIRST ? &t->keys[0] : NULL;
    char item[KEYVAL_PATH_MAX + KEYVAL_TEXT_MAX];
    const char *p = spec;
    uint64_t seen = 0;

    while (first || *p) {
        if (!take_item(&p, item, sizeof(item)))
            return err_set(err, -EINVAL, "%s: '%.60s...' is too long", t->what, p);
        int r;
        if (first && !*item)
            r = err_set(err, -EINVAL, "%s: '%.100s' begins without %s", t->what, spec, first->name);
        else if (first)
            r = parse_value(t, first, item, (char *)values + first->offset, err);
        else
            r = parse_item(t, item, &seen, values, err);
        if (r < 0)
            return r;
        first = NULL;
    }
    return 0;
}
