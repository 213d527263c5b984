/*
 * From a guest offset to an L2 entry, and what an entry says. An L2 table that others share, or that is not there, is made before it is changed: a full
 * copy, or zeroes, in a new cluster, which L1 points to once it is written.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

/* A table being made. */
struct qcow2_l2_copy {
    struct qcow2_l2_copy *next;
    struct qcow2 *q;
    size_t l1_index;
    uint64_t cluster;
    struct qcow2_waitlist waiters;
    struct disk_request io;
    struct iovec iov;
};

static uint64_t last_cluster_of(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    return (offset + len - 1) >> q->cluster_bits;
}

static int decode_packed(const struct qcow2 *q, uint64_t entry, struct qcow2_mapping *m)
{
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & ~QCOW2_COPIED & ~QCOW2_COMPRESSED) >> shift) + 1;

    m->kind = QCOW2_PACKED;
    m->host = offset;
    m->len = sectors * 512 - (offset & 511);
    if (offset >= q->end << q->cluster_bits)
        return -EIO;
    m->first = offset >> q->cluster_bits;
    m->n_first = last_cluster_of(q, offset, m->len) - m->first + 1;
    if (m->first + m->n_first > q->end)
        return -EIO;
    for (uint64_t c = m->first; c < m->first + m->n_first; c++) {
        if (qcow2_set_has(&q->meta, c))
            return -EIO;
    }
    return 0;
}

void qcow2_l2_shape(struct qcow2 *q)
{
    bool extended = q->incompatible & QCOW2_EXTENDED_L2;

    q->entry_size = extended ? 16 : 8;
    q->n_subs = extended ? 32 : 1;
    q->sub_bits = q->cluster_bits - (extended ? 5 : 0);
    q->l2_entries = q->cluster_size / q->entry_size;
    q->l2_bits = q->cluster_bits * 2 - (extended ? 4 : 3);
}

int qcow2_l2_decode(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, struct qcow2_mapping *m)
{
    *m = (struct qcow2_mapping){.entry = entry};
    if (entry & QCOW2_COMPRESSED)
        return decode_packed(q, entry, m);
    m->host = entry & QCOW2_OFFSET_MASK;
    if (q->n_subs > 1) { /* spec, "Extended L2 Entries" */
        m->data = (uint32_t)bitmap;
        m->zero = (uint32_t)(bitmap >> 32);
        if (m->data & m->zero || (m->data && !m->host))
            return -EIO;
    } else if (q->version >= 3 && (entry & QCOW2_READS_ZERO)) {
        m->zero = 1;
    } else {
        m->data = m->host != 0;
    }
    m->kind = m->data ? QCOW2_DATA : m->zero == (UINT64_C(1) << q->n_subs) - 1 ? QCOW2_ZERO : QCOW2_NONE;
    if (!m->host)
        return 0;
    m->copied = entry & QCOW2_COPIED;
    m->first = m->host >> q->cluster_bits;
    m->n_first = 1;
    if (m->host & (q->cluster_size - 1) || m->first >= q->end || qcow2_set_has(&q->meta, m->first))
        return -EIO;
    return 0;
}

int qcow2_l2_entry(struct qcow2 *q, const struct qcow2_l2 *l2, uint64_t guest, uint64_t i, struct qcow2_mapping *m)
{
    if (!l2->page) {
        *m = (struct qcow2_mapping){0};
        return 0;
    }
    unsigned at = l2->index + (unsigned)i;
    uint64_t entry, bitmap;
    qcow2_l2_read(q, l2->page->data + at * q->entry_size, &entry, &bitmap);
    if (qcow2_l2_decode(q, entry, bitmap, m))
        return qcow2_broken(q, "the L2 entry at offset 0x%llx, of guest offset 0x%llx, is 0x%llx (bitmap 0x%llx)",
                            (unsigned long long)(l2->page->offset + at * q->entry_size),
                            (unsigned long long)align_down(guest, q->cluster_size) + i * q->cluster_size,
                            (unsigned long long)entry, (unsigned long long)bitmap);
    return 0;
}

void qcow2_l2_read(const struct qcow2 *q, const uint8_t *at, uint64_t *entry, uint64_t *bitmap)
{
    *entry = qcow2_be64(at);
    *bitmap = q->entry_size > 8 ? qcow2_be64(at + 8) : 0;
}

void qcow2_l2_set(struct qcow2_page *page, unsigned index, uint64_t entry, uint64_t bitmap)
{
    uint8_t *at = page->data + index * page->q->entry_size;

    qcow2_put_be64(at, entry);
    if (page->q->entry_size > 8)
        qcow2_put_be64(at + 8, bitmap);
}

/* Whether the cluster behind i others goes on with what the run is made of. */
static bool continues(const struct qcow2 *q, const struct qcow2_run *run, uint64_t i, const struct qcow2_mapping *m,
                      bool own)
{
    if (qcow2_kind_of(m, 0) != run->kind)
        return false;
    return run->kind != QCOW2_DATA ||
           (m->host == run->first.host + i * q->cluster_size && (!own || m->copied == run->first.copied));
}

int qcow2_l2_run(struct qcow2 *q, const struct qcow2_l2 *l2, uint64_t guest, uint64_t most, bool own,
                 struct qcow2_run *run)
{
    uint64_t in_cluster = guest & (q->cluster_size - 1), i = 0;
    unsigned sub = (unsigned)(in_cluster >> q->sub_bits);
    struct qcow2_mapping m;
    int r = qcow2_l2_entry(q, l2, guest, 0, &m);

    if (r)
        return r;
    *run = (struct qcow2_run){.kind = qcow2_kind_of(&m, sub), .host = m.host + in_cluster, .first = m};
    run->len = q->cluster_size - in_cluster;
    if (!l2->page)
        run->len = (l2->n << q->cluster_bits) - in_cluster;
    while (l2->page && run->kind != QCOW2_PACKED) {
        while (sub < q->n_subs && qcow2_kind_of(&m, sub) == run->kind)
            sub++;
        run->len = (i << q->cluster_bits) + ((uint64_t)sub << q->sub_bits) - in_cluster;
        if (sub < q->n_subs || run->len >= most || ++i == l2->n)
            break;
        r = qcow2_l2_entry(q, l2, guest, i, &m);
        if (r)
            return r;
        if (!continues(q, run, i, &m, own))
            break;
        sub = 0;
    }
    if (run->len > most)
        run->len = most;
    return 0;
}

int qcow2_l2_get(struct qcow2 *q, uint64_t guest, struct qcow2_waiter *w, struct qcow2_l2 *l2)
{
    uint64_t table = q->l1.entries[guest >> q->l2_bits] & QCOW2_OFFSET_MASK;
    size_t index = (guest >> q->cluster_bits) & (q->l2_entries - 1);
    size_t per_page = q->page_size / q->entry_size;

    if (!table) {
        *l2 = (struct qcow2_l2){.n = q->l2_entries - index};
        return 0;
    }
    *l2 = (struct qcow2_l2){.index = (unsigned)(index % per_page), .n = per_page - index % per_page};
    return qcow2_page_get(q, table + index / per_page * q->page_size, QCOW2_PAGE_L2, w, &l2->page);
}

/* ---- making a table ---- */

/* L1 points to the new table; the one it shared with others loses a reference. */
static int install(struct qcow2 *q, size_t l1_index, uint64_t cluster)
{
    uint64_t old = q->l1.entries[l1_index] & QCOW2_OFFSET_MASK;
    int r = qcow2_set_add(&q->meta, cluster);

    if (r == -EEXIST)
        return qcow2_broken(q, "metadata at offset 0x%llx has a refcount of 0",
                            (unsigned long long)cluster << q->cluster_bits);
    if (r)
        return r;
    qcow2_table_set(&q->l1, l1_index, cluster << q->cluster_bits | QCOW2_COPIED);
    if (old)
        qcow2_free_later(q, old >> q->cluster_bits, 1);
    return 0;
}

static void end_copy(struct qcow2_l2_copy *copy, int result)
{
    struct qcow2 *q = copy->q;
    struct qcow2_l2_copy **link = &q->l2_copies;

    while (*link != copy)
        link = &(*link)->next;
    *link = copy->next;
    if (result == 0)
        result = install(q, copy->l1_index, copy->cluster);
    if (result)
        qcow2_free_unused(q, copy->cluster, 1);
    qcow2_wake(q, &copy->waiters, result);
    free(copy->iov.iov_base);
    free(copy);
}

static void written(struct disk_request *io, int result)
{
    struct qcow2_l2_copy *copy = CONTAINER_OF(io, struct qcow2_l2_copy, io);
    struct qcow2 *q = copy->q;

    end_copy(copy, result);
    qcow2_run(q);
}

static void table_read(struct disk_request *io, int result)
{
    struct qcow2_l2_copy *copy = CONTAINER_OF(io, struct qcow2_l2_copy, io);
    struct qcow2 *q = copy->q;

    if (result) {
        written(io, result);
        return;
    }
    io->op = DISK_WRITE;
    io->offset = copy->cluster << q->cluster_bits;
    io->done = written;
    file_submit(q->file, io);
}

static int start_copy(struct qcow2 *q, size_t l1_index, uint64_t cluster, struct qcow2_waiter *w)
{
    struct qcow2_l2_copy *copy = calloc(1, sizeof(*copy));
    uint64_t old = q->l1.entries[l1_index] & QCOW2_OFFSET_MASK;

    if (copy && old)
        copy->iov = (struct iovec){aligned_alloc(q->page_size, q->cluster_size), q->cluster_size};
    if (!copy || (old && !copy->iov.iov_base)) {
        free(copy);
        qcow2_free_unused(q, cluster, 1);
        return -ENOMEM;
    }
    copy->q = q;
    copy->l1_index = l1_index;
    copy->cluster = cluster;
    copy->next = q->l2_copies;
    q->l2_copies = copy;
    qcow2_park(&copy->waiters, w);
    copy->io = (struct disk_request){
        .op = DISK_ZERO, .offset = cluster << q->cluster_bits, .len = q->cluster_size, .done = written};
    if (old) {
        copy->io.op = DISK_READ;
        copy->io.offset = old;
        copy->io.iov = &copy->iov;
        copy->io.n_iov = 1;
        copy->io.done = table_read;
    }
    file_submit(q->file, &copy->io);
    return -EAGAIN;
}

static int make_table(struct qcow2 *q, size_t l1_index, struct qcow2_waiter *w)
{
    uint64_t cluster, n;
    bool fresh;

    for (struct qcow2_l2_copy *copy = q->l2_copies; copy; copy = copy->next) {
        if (copy->l1_index == l1_index) {
            qcow2_park(&copy->waiters, w);
            return -EAGAIN;
        }
    }
    int r = qcow2_refcount_alloc(q, 1, 1, w, &cluster, &n, &fresh);
    if (r)
        return r;
    if (q->l1.entries[l1_index] || !fresh)
        return start_copy(q, l1_index, cluster, w);
    r = install(q, l1_index, cluster);
    if (r)
        qcow2_free_unused(q, cluster, 1);
    return r;
}

int qcow2_l2_get_writable(struct qcow2 *q, uint64_t guest, struct qcow2_waiter *w, struct qcow2_l2 *l2)
{
    size_t l1_index = guest >> q->l2_bits;
    uint64_t before = q->l1.entries[l1_index];
    int r = before & QCOW2_COPIED ? 0 : make_table(q, l1_index, w);

    if (r)
        return r;
    if (!before) { /* new, in a fresh cluster: its pages need not be read */
        uint64_t table = q->l1.entries[l1_index] & QCOW2_OFFSET_MASK;
        size_t page = ((guest >> q->cluster_bits) & (q->l2_entries - 1)) / (q->page_size / q->entry_size);
        struct qcow2_page *zeroes;
        r = qcow2_page_new(q, table + page * q->page_size, QCOW2_PAGE_L2, &zeroes);
        if (r)
            return r;
    }
    return qcow2_l2_get(q, guest, w, l2);
}
