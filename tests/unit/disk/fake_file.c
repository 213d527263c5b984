#include "fake_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SECTOR 512

/* A fault of the test's own; fuzz targets use this file too. */
#define MUST(x) ((x) ? (void)0 : abort())

struct pending {
    struct disk_request *req;
    size_t n_changes; /* at submission */
    uint64_t after;   /* n_ops */
};

struct file {
    struct fake *fake;
    struct loop *loop;
    struct loop_event event;
    struct pending *pending;
    size_t n, capacity;
};

struct fake *fake_next;
struct fake_name fake_names[8];

uint32_t fake_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void reserve(struct fake *f, uint64_t size)
{
    if (size <= f->capacity)
        return;
    uint64_t capacity = size * 2;
    f->data = realloc(f->data, capacity);
    f->durable = realloc(f->durable, capacity);
    MUST(f->data);
    MUST(f->durable);
    memset(f->data + f->capacity, 0, capacity - f->capacity);
    memset(f->durable + f->capacity, 0, capacity - f->capacity);
    f->capacity = capacity;
}

struct fake *fake_new(const uint8_t *image, uint64_t size, uint64_t seed)
{
    struct fake *f = calloc(1, sizeof(*f));

    MUST(f);
    f->seed = seed;
    reserve(f, size + 1);
    memcpy(f->data, image, size);
    memcpy(f->durable, image, size);
    f->size = f->durable_size = size;
    return f;
}

struct fake *fake_load(const char *path, uint64_t seed)
{
    FILE *in = fopen(path, "r");
    MUST(in);
    fseek(in, 0, SEEK_END);
    size_t size = (size_t)ftell(in);
    rewind(in);
    uint8_t *image = malloc(size + 1);
    MUST(image);
    MUST(fread(image, 1, size, in) == size);
    fclose(in);
    struct fake *f = fake_new(image, size, seed);
    free(image);
    return f;
}

void fake_save(const struct fake *f, const char *path)
{
    FILE *out = fopen(path, "w");
    MUST(out);
    MUST(fwrite(f->data, 1, f->size, out) == f->size);
    MUST(fclose(out) == 0);
}

static void drop_changes(struct fake *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(f->changes[i].data);
    f->n_changes -= n;
    if (f->n_changes)
        memmove(f->changes, f->changes + n, f->n_changes * sizeof(*f->changes));
}

void fake_free(struct fake *f)
{
    drop_changes(f, f->n_changes);
    free(f->changes);
    free(f->data);
    free(f->durable);
    free(f);
}

/* ---- changes ---- */

static void apply_part(uint8_t *to, const struct fake_change *c, uint64_t from, uint64_t len)
{
    if (c->data)
        memcpy(to + c->offset + from, c->data + from, len);
    else
        memset(to + c->offset + from, 0, len);
}

static void apply(uint8_t *to, uint64_t *size, const struct fake_change *c)
{
    if (c->truncate) {
        if (c->offset < *size)
            memset(to + c->offset, 0, *size - c->offset);
        *size = c->offset;
        return;
    }
    apply_part(to, c, 0, c->len);
    if (c->offset + c->len > *size)
        *size = c->offset + c->len;
}

static void change(struct fake *f, struct fake_change c)
{
    reserve(f, c.offset + c.len + 1);
    apply(f->data, &f->size, &c);
    if (!f->keep_changes) {
        free(c.data);
        return;
    }
    if (f->n_changes == f->changes_capacity) {
        f->changes_capacity = f->changes_capacity * 2 + 64;
        f->changes = realloc(f->changes, f->changes_capacity * sizeof(*f->changes));
        MUST(f->changes);
    }
    f->changes[f->n_changes++] = c;
}

/* Each sector of a torn change is there or not. */
static void tear(struct fake *f, const struct fake_change *c, uint64_t *seed)
{
    for (uint64_t at = 0; at < c->len;) {
        uint64_t here = SECTOR - (c->offset + at) % SECTOR;
        here = here < c->len - at ? here : c->len - at;
        if (fake_random(seed) % 2) {
            apply_part(f->data, c, at, here);
            if (c->offset + at + here > f->size)
                f->size = c->offset + at + here;
        }
        at += here;
    }
}

/* `to` has what was durable, and gets of f's changes what was lucky. */
static void find_after_cut(struct fake *to, const struct fake *f, uint64_t seed)
{
    unsigned keep = fake_random(&seed) % 4; /* how much of it there is differs from cut to cut */

    for (size_t i = 0; i < f->n_changes; i++) {
        const struct fake_change *c = &f->changes[i];
        unsigned fate = fake_random(&seed) % 6;
        if (fate < keep || (fate == 5 && c->truncate))
            apply(to->data, &to->size, c);
        else if (fate == 5)
            tear(to, c, &seed);
    }
    memcpy(to->durable, to->data, to->size);
    to->durable_size = to->size;
}

struct fake *fake_cut(struct fake *f, uint64_t seed)
{
    struct fake *after = fake_new(f->durable, f->durable_size, seed);

    for (size_t i = 0; i < f->n_changes; i++)
        reserve(after, f->changes[i].offset + f->changes[i].len + 1);
    find_after_cut(after, f, seed);
    return after;
}

void fake_revive(struct fake *f, uint64_t seed)
{
    uint64_t end = f->size > f->durable_size ? f->size : f->durable_size;

    memcpy(f->data, f->durable, f->durable_size);
    memset(f->data + f->durable_size, 0, end - f->durable_size);
    f->size = f->durable_size;
    find_after_cut(f, f, seed);
    if (f->size < end) /* beyond a file's end are zeroes */
        memset(f->durable + f->size, 0, end - f->size);
    drop_changes(f, f->n_changes);
    f->dead = false;
    f->die_at = f->stop_at = f->fail_op = 0;
}

static void sync_until(struct fake *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        apply(f->durable, &f->durable_size, &f->changes[i]);
    drop_changes(f, n);
}

/* ---- requests ---- */

/* What no file has: whoever asks for it used something unchecked. */
static void check_range(const struct disk_request *req)
{
    MUST(req->offset <= INT64_MAX && req->len <= INT64_MAX - req->offset);
}

/* With fail_stays, room that there is can be written to again: only that the test cannot tell, so nothing can. */
static bool may_find_no_room(enum disk_op op, bool stays)
{
    return op == DISK_WRITE || op == DISK_ZERO || (!stays && (op == DISK_FLUSH || op == DISK_DISCARD));
}

/* 0, or what the operation that is the next fails with for fail_op. */
static int fail_now(struct fake *f, enum disk_op op)
{
    if (!f->fail_op || (f->fail_stays ? f->n_ops < f->fail_op : f->n_ops != f->fail_op))
        return 0;
    if (f->fail_errno == -ENOSPC && !may_find_no_room(op, f->fail_stays)) {
        f->fail_op += !f->fail_stays;
        return 0;
    }
    f->n_failed++;
    if (!f->fail_stays)
        f->fail_op = f->fail_gap ? f->n_ops + 1 + fake_random(&f->seed) % f->fail_gap : 0;
    return f->fail_errno ? f->fail_errno : fake_random(&f->seed) % 2 ? -EIO : -ENOSPC;
}

void fake_mend(struct fake *f)
{
    f->max_size = f->full_at = 0;
    if (f->fail_stays)
        f->fail_op = 0;
}

static int fault(struct fake *f, const struct disk_request *req)
{
    check_range(req);
    f->n_ops++;
    if (f->die_at && f->n_ops >= f->die_at)
        f->dead = true;
    if (f->dead && f->twin)
        f->twin->dead = true;
    if (f->dead)
        return -EIO;
    int r = fail_now(f, req->op);
    if (r)
        return r;
    if (f->n_ops == f->full_at)
        f->max_size = f->size;
    if (req->op == DISK_READ || req->op == DISK_DISCARD)
        return 0;
    if (f->max_size && req->op != DISK_FLUSH && (req->offset > f->max_size || req->len > f->max_size - req->offset)) {
        f->n_failed++;
        return -ENOSPC;
    }
    return 0;
}

static void read_into(const struct fake *f, const struct disk_request *req)
{
    uint64_t at = req->offset;

    for (unsigned i = 0; i < req->n_iov; at += req->iov[i++].iov_len) {
        uint64_t have = at < f->size ? f->size - at : 0, len = req->iov[i].iov_len;
        have = have < len ? have : len;
        if (have)
            memcpy(req->iov[i].iov_base, f->data + at, have);
        memset((uint8_t *)req->iov[i].iov_base + have, 0, len - have);
    }
}

static uint8_t *gather(const struct disk_request *req)
{
    uint8_t *data = malloc(req->len + 1), *to = data;

    MUST(data);
    for (unsigned i = 0; i < req->n_iov; to += req->iov[i++].iov_len)
        memcpy(to, req->iov[i].iov_base, req->iov[i].iov_len);
    MUST((uint64_t)(to - data) == req->len);
    return data;
}

static bool is_zero(const struct fake *f, uint64_t at, uint64_t end)
{
    while (at < end && (at >= f->size || !f->data[at]))
        at++;
    return at == end;
}

/* Sectors of zeroes are holes. */
static void map(const struct fake *f, struct disk_request *req)
{
    uint64_t end = req->offset + req->len;
    unsigned room = req->n_extents;

    req->n_extents = 0;
    for (uint64_t at = req->offset; at < end;) {
        uint64_t to = at - at % SECTOR + SECTOR < end ? at - at % SECTOR + SECTOR : end;
        enum disk_extent_kind kind = is_zero(f, at, to) ? DISK_EXTENT_HOLE : DISK_EXTENT_DATA;
        struct disk_extent *last = req->n_extents ? &req->extents[req->n_extents - 1] : NULL;
        if (last && last->kind == kind) {
            last->len += to - at;
        } else if (req->n_extents == room) {
            return;
        } else {
            req->extents[req->n_extents++] = (struct disk_extent){.kind = kind,
                                                                  .offset = at,
                                                                  .len = to - at,
                                                                  .has_host = kind == DISK_EXTENT_DATA,
                                                                  .host_offset = kind == DISK_EXTENT_DATA ? at : 0};
        }
        at = to;
    }
}

static int perform(struct fake *f, const struct pending *p, size_t *synced)
{
    const struct disk_request *req = p->req;
    int r = fault(f, req);

    *synced = 0;
    if (r)
        return r;
    switch (req->op) {
    case DISK_READ:
        read_into(f, req);
        return 0;
    case DISK_WRITE:
        change(f, (struct fake_change){.offset = req->offset, .len = req->len, .data = gather(req)});
        return 0;
    case DISK_FLUSH:
        *synced = p->n_changes;
        sync_until(f, p->n_changes);
        return 0;
    case DISK_MAP:
        map(f, p->req);
        return 0;
    case DISK_DISCARD:
        if (req->offset < f->size) {
            uint64_t len = req->len < f->size - req->offset ? req->len : f->size - req->offset;
            change(f, (struct fake_change){.offset = req->offset, .len = len});
        }
        return 0;
    case DISK_ZERO:
        change(f, (struct fake_change){.offset = req->offset, .len = req->len});
        return 0;
    }
    return -EINVAL;
}

static void pump_one(struct file *file)
{
    struct fake *f = file->fake;
    size_t i = fake_random(&f->seed) % file->n, synced;

    for (size_t tries = 0; tries < file->n && file->pending[i].after > f->n_ops; tries++)
        i = (i + 1) % file->n;
    struct pending p = file->pending[i];

    file->pending[i] = file->pending[--file->n];
    int r = perform(f, &p, &synced);
    for (size_t k = 0; k < file->n; k++)
        file->pending[k].n_changes -= file->pending[k].n_changes < synced ? file->pending[k].n_changes : synced;
    if (f->stop_at && f->n_ops >= f->stop_at)
        loop_stop(file->loop);
    disk_complete(p.req, r);
}

static void pump(void *opaque)
{
    struct file *file = opaque;

    for (unsigned i = 0; file->n && i < 8; i++)
        pump_one(file);
    if (file->n)
        loop_event_set(&file->event);
}

int file_open(struct file **out, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    struct file *file = calloc(1, sizeof(*file));
    struct fake *fake = fake_next;

    MUST(file);
    for (size_t i = 0; i < sizeof(fake_names) / sizeof(fake_names[0]); i++)
        if (fake_names[i].fake && strcmp(fake_names[i].path, conf->path) == 0)
            fake = fake_names[i].fake;
    MUST(!fake->open);
    file->fake = fake;
    file->fake->open = true;
    file->loop = loop;
    loop_event_init(&file->event, loop, pump, file);
    *out = file;
    return 0;
}

void file_close(struct file *file)
{
    MUST(file->n == 0);
    loop_event_fini(&file->event);
    file->fake->open = false;
    free(file->pending);
    free(file);
}

uint64_t file_size(const struct file *file)
{
    return file->fake->size;
}

void file_submit(struct file *file, struct disk_request *req)
{
    if (file->n == file->capacity) {
        file->capacity = file->capacity * 2 + 16;
        file->pending = realloc(file->pending, file->capacity * sizeof(*file->pending));
        MUST(file->pending);
    }
    struct fake *f = file->fake;
    uint64_t after = f->lag && fake_random(&f->seed) % 8 == 0 ? f->n_ops + fake_random(&f->seed) % f->lag : 0;
    file->pending[file->n++] = (struct pending){req, f->n_changes, after};
    loop_event_set(&file->event);
}

void file_wait(struct file *file)
{
    if (file->n)
        pump_one(file);
}

static int now(struct file *file, enum disk_op op, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = {buf, len};
    struct disk_request req = {.op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1};
    struct pending p = {&req, file->fake->n_changes, 0};
    size_t synced;
    int r = perform(file->fake, &p, &synced);

    for (size_t k = 0; k < file->n; k++)
        file->pending[k].n_changes -= file->pending[k].n_changes < synced ? file->pending[k].n_changes : synced;
    return r;
}

int file_read(struct file *file, uint64_t offset, void *buf, size_t len)
{
    return now(file, DISK_READ, offset, buf, len);
}

int file_write(struct file *file, uint64_t offset, const void *buf, size_t len)
{
    return now(file, DISK_WRITE, offset, (void *)buf, len);
}

int file_sync(struct file *file)
{
    return now(file, DISK_FLUSH, 0, NULL, 0);
}

int file_truncate(struct file *file, uint64_t size)
{
    struct fake *f = file->fake;

    if (f->dead)
        return -EIO;
    f->n_ops++;
    int r = fail_now(f, DISK_WRITE);
    if (r)
        return r;
    if (f->max_size && size > f->max_size) {
        f->n_failed++;
        return -ENOSPC;
    }
    change(f, (struct fake_change){.truncate = true, .offset = size});
    return 0;
}
