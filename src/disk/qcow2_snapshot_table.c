/*
 * The table of snapshots (spec, "Snapshots"), and the tree, which the format knows nothing of. An entry's extra data may be longer than the spec's
 * fields, and whoever writes the table keeps what he does not know: there, behind room for fields that the spec may get, is ours.
 *
 *     128  "vire"
 *     132  flags: 1, the disk's content comes from this one
 *     136  the highest id that the image ever gave
 *     144  the parent's id, filled up with zeroes to 32 bytes
 *
 * An entry that lacks it was made by another program: whose child it is nobody knows, nor whether the disk comes from it. Whatever changes the table gives
 * it one with no parent.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk/qcow2_snapshot.h"

#define MAX_BYTES (16 * MIB)
#define MAX_EXTRA 1024

enum { /* offsets in an entry */
       L1_OFFSET = 0,
       L1_SIZE = 8,
       ID_SIZE = 12,
       NAME_SIZE = 14,
       SECONDS = 16,
       NANOSECONDS = 20,
       VM_STATE_SIZE = 32,
       EXTRA_SIZE = 36,
       FIXED = 40,
};

enum { /* offsets in the extra data */
       EXTRA_VM_STATE_SIZE = 0,
       EXTRA_DISK_SIZE = 8,
       EXTRA_ICOUNT = 16,
       EXTRA_KNOWN = 24,
       OURS = 128,
       OURS_FLAGS = OURS + 4,
       OURS_HIGHEST = OURS + 8,
       OURS_PARENT = OURS + 16,
       OURS_END = OURS_PARENT + DISK_SNAPSHOT_ID_MAX,
};

#define MAGIC   0x76697265u
#define CURRENT 1u

typedef unsigned long long ull;

static uint16_t be16(const uint8_t *p)
{
    return __builtin_bswap16(load_le16(p));
}

static void put_be16(uint8_t *p, uint16_t v)
{
    store_le16(p, __builtin_bswap16(v));
}

/* ---- the file's form ---- */

static char *text(const uint8_t *p, size_t len)
{
    char *s = malloc(len + 1);

    if (s) {
        memcpy(s, p, len);
        s[len] = '\0';
    }
    return s;
}

/* *at moves on. -EINVAL where it does not fit in what is there. */
static int unpack(struct qcow2_snapshot_entry *e, const uint8_t *buf, size_t len, size_t *at)
{
    if (len - *at < FIXED)
        return -EINVAL;
    memcpy(e->fixed, buf + *at, FIXED);
    e->n_extra = qcow2_be32(e->fixed + EXTRA_SIZE);
    e->n_id = be16(e->fixed + ID_SIZE);
    e->n_name = be16(e->fixed + NAME_SIZE);
    *at += FIXED;
    if (e->n_extra > MAX_EXTRA || len - *at < (size_t)e->n_extra + e->n_id + e->n_name)
        return -EINVAL;
    e->extra = malloc(e->n_extra + 1);
    e->id = text(buf + *at + e->n_extra, e->n_id);
    e->name = text(buf + *at + e->n_extra + e->n_id, e->n_name);
    if (!e->extra || !e->id || !e->name)
        return -ENOMEM;
    memcpy(e->extra, buf + *at, e->n_extra);
    *at = align_up(*at + e->n_extra + e->n_id + e->n_name, 8);
    *at = *at < len ? *at : len; /* the last may lack its padding */
    return 0;
}

int qcow2_snapshot_table_read(struct qcow2 *q, struct qcow2_snapshot_table *t, struct err *err)
{
    size_t at = 0, len = q->snapshots_bytes;

    *t = (struct qcow2_snapshot_table){.items = calloc(q->n_snapshots + 1, sizeof(*t->items))};
    if (len > MAX_BYTES)
        return err_set(err, -EFBIG, "disk '%.200s': its table of snapshots has %zu bytes; accepted are up to %llu",
                       q->disk.path, len, (ull)MAX_BYTES);
    uint8_t *buf = malloc(len + 1);
    int r = t->items && buf ? 0 : -ENOMEM;
    if (r == 0 && len)
        r = file_read(q->file, q->snapshots_offset, buf, len);
    while (r == 0 && t->n < q->n_snapshots)
        r = unpack(&t->items[t->n++], buf, len, &at);
    free(buf);
    return r ? err_set(err, r, "disk '%.200s': its table of snapshots at 0x%llx cannot be read: %s", q->disk.path,
                       (ull)q->snapshots_offset, strerror(-r))
             : 0;
}

static void free_entry(struct qcow2_snapshot_entry *e)
{
    free(e->extra);
    free(e->id);
    free(e->name);
}

void qcow2_snapshot_table_fini(struct qcow2_snapshot_table *t)
{
    for (size_t i = 0; i < t->n; i++)
        free_entry(&t->items[i]);
    free(t->items);
    *t = (struct qcow2_snapshot_table){0};
}

static size_t packed_size(const struct qcow2_snapshot_entry *e)
{
    return align_up(FIXED + (size_t)e->n_extra + e->n_id + e->n_name, 8);
}

uint8_t *qcow2_snapshot_table_pack(const struct qcow2_snapshot_table *t, size_t *len)
{
    size_t at = 0;

    *len = 0;
    for (size_t i = 0; i < t->n; i++)
        *len += packed_size(&t->items[i]);
    uint8_t *buf = calloc(1, *len + 1);
    for (size_t i = 0; buf && i < t->n; i++) {
        const struct qcow2_snapshot_entry *e = &t->items[i];
        uint8_t *p = buf + at;
        memcpy(p, e->fixed, FIXED);
        qcow2_put_be32(p + EXTRA_SIZE, e->n_extra);
        memcpy(p + FIXED, e->extra, e->n_extra);
        memcpy(p + FIXED + e->n_extra, e->id, e->n_id);
        memcpy(p + FIXED + e->n_extra + e->n_id, e->name, e->n_name);
        at += packed_size(e);
    }
    return buf;
}

/* ---- names ---- */

static void show(char *to, size_t size, const char *from)
{
    size_t n = 0;

    for (; *from && n + 1 < size; from++)
        to[n++] = (unsigned char)*from < ' ' || *from == 0x7f ? '?' : *from;
    to[n] = '\0';
}

bool qcow2_snapshot_table_has_name(const struct qcow2_snapshot_table *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->items[i].name, name) == 0)
            return true;
    return false;
}

static bool find_id(const struct qcow2_snapshot_table *t, const char *id, size_t *i)
{
    for (*i = 0; *i < t->n; ++*i)
        if (strcmp(t->items[*i].id, id) == 0)
            return true;
    return false;
}

int qcow2_snapshot_table_find(const struct qcow2 *q, const struct qcow2_snapshot_table *t, const char *name, size_t *i,
                              struct err *err)
{
    char list[280] = "there are none", shown[40];
    size_t at = 0;

    for (*i = 0; *i < t->n; ++*i)
        if (strcmp(t->items[*i].name, name) == 0)
            return 0;
    if (find_id(t, name, i))
        return 0;
    for (size_t k = 0; k < t->n; k++) {
        show(shown, sizeof(shown), t->items[k].name);
        if (at + strlen(shown) + 24 > sizeof(list)) {
            snprintf(list + at, sizeof(list) - at, " and %zu more", t->n - k);
            break;
        }
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", k ? ", " : "accepted are ", shown);
    }
    show(shown, sizeof(shown), name);
    return err_set(err, -ENOENT, "disk '%.100s': no snapshot is called '%s'; %s", q->disk.path, shown, list);
}

/* ---- extra data ---- */

static bool has_ours(const struct qcow2_snapshot_entry *e)
{
    return e->n_extra >= OURS_END && qcow2_be32(e->extra + OURS) == MAGIC;
}

uint64_t qcow2_snapshot_table_size(const struct qcow2_snapshot_entry *e, uint64_t size)
{
    return e->n_extra >= EXTRA_ICOUNT ? qcow2_be64(e->extra + EXTRA_DISK_SIZE) : size;
}

static uint64_t state_size(const struct qcow2_snapshot_entry *e)
{
    return e->n_extra >= EXTRA_DISK_SIZE ? qcow2_be64(e->extra + EXTRA_VM_STATE_SIZE)
                                         : qcow2_be32(e->fixed + VM_STATE_SIZE);
}

static int add_ours(struct qcow2_snapshot_entry *e, uint64_t size)
{
    uint8_t *extra;

    if (has_ours(e))
        return 0;
    extra = realloc(e->extra, OURS_END > e->n_extra ? OURS_END : e->n_extra);
    if (!extra)
        return -ENOMEM;
    e->extra = extra;
    if (e->n_extra < OURS_END)
        memset(extra + e->n_extra, 0, OURS_END - e->n_extra);
    if (e->n_extra < EXTRA_DISK_SIZE)
        qcow2_put_be64(extra + EXTRA_VM_STATE_SIZE, qcow2_be32(e->fixed + VM_STATE_SIZE));
    if (e->n_extra < EXTRA_ICOUNT)
        qcow2_put_be64(extra + EXTRA_DISK_SIZE, size);
    if (e->n_extra < EXTRA_KNOWN)
        qcow2_put_be64(extra + EXTRA_ICOUNT, UINT64_MAX); /* not counted */
    if (e->n_extra < OURS_END)
        e->n_extra = OURS_END;
    memset(extra + OURS, 0, OURS_END - OURS);
    qcow2_put_be32(extra + OURS, MAGIC);
    return 0;
}

/* ---- the tree ---- */

/* The one that the disk comes from, or NULL: none, or nobody knows. */
static struct qcow2_snapshot_entry *current(const struct qcow2_snapshot_table *t)
{
    struct qcow2_snapshot_entry *found = NULL;

    for (size_t i = 0; i < t->n; i++) {
        if (!has_ours(&t->items[i]))
            return NULL;
        if (qcow2_be32(t->items[i].extra + OURS_FLAGS) & CURRENT)
            found = &t->items[i];
    }
    return found;
}

static uint64_t number(const char *id)
{
    char *end;
    uint64_t n = strtoull(id, &end, 10);

    return *id < '0' || *id > '9' || *end ? 0 : n;
}

static uint64_t highest(const struct qcow2_snapshot_table *t)
{
    uint64_t max = 0;

    for (size_t i = 0; i < t->n; i++) {
        const struct qcow2_snapshot_entry *e = &t->items[i];
        uint64_t n = number(e->id), ever = has_ours(e) ? qcow2_be64(e->extra + OURS_HIGHEST) : 0;
        n = n > ever ? n : ever;
        max = n > max && n < UINT64_MAX ? n : max;
    }
    return max;
}

/* All have our part now, and agree on the highest id and on the one that the disk comes from. */
static int settle(struct qcow2_snapshot_table *t, uint64_t highest_id, const struct qcow2_snapshot_entry *from,
                  uint64_t size)
{
    for (size_t i = 0; i < t->n; i++) {
        struct qcow2_snapshot_entry *e = &t->items[i];
        if (add_ours(e, size))
            return -ENOMEM;
        qcow2_put_be64(e->extra + OURS_HIGHEST, highest_id);
        qcow2_put_be32(e->extra + OURS_FLAGS, e == from ? CURRENT : 0);
    }
    return 0;
}

static void set_parent(struct qcow2_snapshot_entry *e, const char *id)
{
    memset(e->extra + OURS_PARENT, 0, DISK_SNAPSHOT_ID_MAX);
    if (strlen(id) < DISK_SNAPSHOT_ID_MAX)
        memcpy(e->extra + OURS_PARENT, id, strlen(id));
}

/* "": none, or nobody knows. A parent stands before its children, so whatever an image says, this is a tree. */
static const char *parent_of(const struct qcow2_snapshot_table *t, size_t i)
{
    const struct qcow2_snapshot_entry *e = &t->items[i];
    const char *parent = has_ours(e) ? (const char *)e->extra + OURS_PARENT : "";
    size_t at;

    if (strnlen(parent, DISK_SNAPSHOT_ID_MAX) == DISK_SNAPSHOT_ID_MAX)
        return "";
    return *parent && find_id(t, parent, &at) && at < i ? parent : "";
}

int qcow2_snapshot_table_add(struct qcow2_snapshot_table *t, const char *name, int64_t time_ns, uint64_t size,
                             struct qcow2_snapshot_entry **entry)
{
    struct qcow2_snapshot_entry *items = realloc(t->items, (t->n + 2) * sizeof(*items));
    char digits[24];
    size_t same;

    if (!items)
        return -ENOMEM;
    t->items = items;
    uint64_t id = highest(t);
    do {
        snprintf(digits, sizeof(digits), "%llu", (ull)++id);
    } while (find_id(t, digits, &same));
    const struct qcow2_snapshot_entry *parent = current(t);
    struct qcow2_snapshot_entry *e = &t->items[t->n];
    *e = (struct qcow2_snapshot_entry){
        .id = strdup(digits), .name = strdup(name), .n_id = (uint16_t)strlen(digits), .n_name = (uint16_t)strlen(name)};
    t->n++;
    if (!e->id || !e->name)
        return -ENOMEM;
    put_be16(e->fixed + ID_SIZE, e->n_id);
    put_be16(e->fixed + NAME_SIZE, e->n_name);
    qcow2_put_be32(e->fixed + SECONDS, (uint32_t)(time_ns / NS_PER_SEC));
    qcow2_put_be32(e->fixed + NANOSECONDS, (uint32_t)(time_ns % NS_PER_SEC));
    if (settle(t, id, e, size))
        return -ENOMEM;
    set_parent(e, parent ? parent->id : "");
    *entry = e;
    return 0;
}

int qcow2_snapshot_table_reverted(struct qcow2_snapshot_table *t, size_t i, uint64_t size)
{
    return settle(t, highest(t), &t->items[i], size);
}

int qcow2_snapshot_table_remove(struct qcow2_snapshot_table *t, size_t i, uint64_t size)
{
    struct qcow2_snapshot_entry *gone = &t->items[i];
    const struct qcow2_snapshot_entry *from = current(t);
    char parent[DISK_SNAPSHOT_ID_MAX];
    size_t at;

    snprintf(parent, sizeof(parent), "%s", parent_of(t, i));
    if (from == gone)
        from = *parent && find_id(t, parent, &at) ? &t->items[at] : NULL;
    if (settle(t, highest(t), from, size))
        return -ENOMEM;
    for (size_t k = i + 1; k < t->n; k++)
        if (strcmp(parent_of(t, k), gone->id) == 0)
            set_parent(&t->items[k], parent);
    free_entry(gone);
    memmove(gone, gone + 1, (t->n - i - 1) * sizeof(*gone));
    t->n--;
    return 0;
}

/* ---- list ---- */

int qcow2_snapshot_table_list(const struct qcow2_snapshot_table *t, uint64_t size, struct disk_snapshots *list)
{
    const struct qcow2_snapshot_entry *from = current(t);

    list->items = calloc(t->n + 1, sizeof(*list->items));
    if (!list->items)
        return -ENOMEM;
    for (size_t i = 0; i < t->n; i++) {
        const struct qcow2_snapshot_entry *e = &t->items[i];
        struct disk_snapshot *s = &list->items[i];
        snprintf(s->id, sizeof(s->id), "%s", e->id);
        snprintf(s->name, sizeof(s->name), "%s", e->name);
        snprintf(s->parent, sizeof(s->parent), "%s", parent_of(t, i));
        s->time_ns = qcow2_be32(e->fixed + SECONDS) * NS_PER_SEC + qcow2_be32(e->fixed + NANOSECONDS) % NS_PER_SEC;
        s->disk_size = qcow2_snapshot_table_size(e, size);
        s->state_size = state_size(e);
    }
    list->n = t->n;
    snprintf(list->current, sizeof(list->current), "%s", from ? from->id : "");
    return 0;
}
