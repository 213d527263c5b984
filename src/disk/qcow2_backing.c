/*
 * Which backing file an image has. Another one is named by the header's first sector alone, which is written whole or not at all: it has the extension with the
 * format, too, and the name where there is room. A longer name is written before, to a place in the first cluster where nothing lies.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/disk_chain.h"
#include "disk/qcow2_impl.h"

#define MAX_NAME 1023 /* spec, "backing_file_size" */

#define EXT_FEATURE_NAMES 0x6803f857u /* only for messages; left out where the header is made anew */

int qcow2_backing_open(struct qcow2 *q, const struct disk_conf *conf, struct err *err)
{
    if (!q->backing_name)
        return 0;
    q->backed_below = UINT64_MAX; /* somebody may open it one day */
    if (conf->no_backing)
        return 0;
    int r = disk_chain_open(&q->backing, q->backing_name, q->backing_format, conf, q->disk.loop, err);
    if (r == 0)
        q->backed_below = q->backing->size;
    return r;
}

static struct disk *get(struct disk *disk)
{
    return ((struct qcow2 *)disk)->backing;
}

static const char *name_of(const struct disk *disk, const char **format)
{
    const struct qcow2 *q = (const struct qcow2 *)disk;

    *format = q->backing_format;
    return q->backing_name;
}

static void expect(struct disk *disk, uint64_t size)
{
    struct qcow2 *q = (struct qcow2 *)disk;

    if (q->backed_below < size)
        q->backed_below = size;
}

/* ---- another name ---- */

static size_t put_extension(uint8_t *sector, size_t at, uint32_t type, const void *data, size_t n)
{
    qcow2_put_be32(sector + at, type);
    qcow2_put_be32(sector + at + 4, (uint32_t)n);
    if (n)
        memcpy(sector + at + 8, data, n);
    return at + 8 + align_up(n, 8);
}

/* The extensions that stay, and the format, into the sector; *at moves on. -ENOSPC where that is too much. */
static int put_extensions(const uint8_t *head, size_t len, size_t start, const char *format, const uint8_t *bitmaps,
                          uint8_t *sector, size_t *at)
{
    uint64_t end = qcow2_be64(head + 8) ? qcow2_be64(head + 8) : len;

    if (bitmaps)
        *at = put_extension(sector, *at, QCOW2_EXT_BITMAPS, bitmaps, QCOW2_EXT_BITMAPS_BYTES);
    if (format)
        *at = put_extension(sector, *at, QCOW2_EXT_BACKING_FORMAT, format, strlen(format));
    for (size_t from = start; from + 8 <= end;) {
        uint32_t type = qcow2_be32(head + from), n = qcow2_be32(head + from + 4);
        if (!type || n > end - from - 8)
            break;
        if (type != QCOW2_EXT_BACKING_FORMAT && type != EXT_FEATURE_NAMES && type != QCOW2_EXT_BITMAPS) {
            if (n > QCOW2_HEADER_SECTOR - 16 || *at + 16 + align_up(n, 8) > QCOW2_HEADER_SECTOR)
                return -ENOSPC;
            *at = put_extension(sector, *at, type, head + from + 8, n);
        }
        from += 8 + align_up(n, 8);
    }
    *at = put_extension(sector, *at, 0, NULL, 0);
    return 0;
}

/* Where in the first cluster a name of n bytes can lie, behind its first sector and beside the old name; 0: nowhere. */
static size_t find_place(const struct qcow2 *q, const uint8_t *head, size_t start, size_t n)
{
    uint64_t old = qcow2_be64(head + 8), old_n = qcow2_be32(head + 16), first = QCOW2_HEADER_SECTOR;

    /* The extensions that are there now are still needed if this goes wrong. */
    for (size_t at = start; at + 8 <= q->cluster_size;) {
        uint32_t type = qcow2_be32(head + at), len = qcow2_be32(head + at + 4);
        if (len > q->cluster_size - at - 8)
            break;
        at += 8 + align_up(type ? len : 0, 8);
        if (at > first)
            first = at;
        if (!type)
            break;
    }
    if (first + n <= q->cluster_size && (!old || first + n <= old || first >= old + old_n))
        return first;
    first = align_up(old + old_n, 8);
    return old && first >= QCOW2_HEADER_SECTOR && first + n <= q->cluster_size ? first : 0;
}

/* All but the writing. *place: where in the cluster the name is, or 0. */
static int make_sector(const struct qcow2 *q, const uint8_t *head, const char *name, const char *format,
                       const uint8_t *bitmaps, uint8_t *sector, size_t *place)
{
    size_t start = q->version >= 3 ? qcow2_be32(head + 100) : 72, n = name ? strlen(name) : 0, at = start;

    *place = 0;
    if (start + 64 > QCOW2_HEADER_SECTOR)
        return -ENOSPC;
    memset(sector, 0, QCOW2_HEADER_SECTOR);
    memcpy(sector, head, start);
    int r = put_extensions(head, q->cluster_size, start, name && *format ? format : NULL, bitmaps, sector, &at);
    if (r || !name) {
        qcow2_put_be64(sector + 8, 0);
        qcow2_put_be32(sector + 16, 0);
        return r;
    }
    if (at + n <= QCOW2_HEADER_SECTOR) {
        memcpy(sector + at, name, n);
        *place = at;
    } else {
        *place = find_place(q, head, start, n);
    }
    qcow2_put_be64(sector + 8, *place);
    qcow2_put_be32(sector + 16, (uint32_t)n);
    return *place ? 0 : -ENOSPC;
}

static int switch_sector(struct qcow2 *q, const uint8_t *head, const char *name, const char *format,
                         const uint8_t *bitmaps)
{
    uint8_t old[QCOW2_HEADER_SECTOR], sector[QCOW2_HEADER_SECTOR];
    bool had_bitmaps = q->bitmaps_there;
    size_t place;
    int r = make_sector(q, head, name, format, bitmaps, sector, &place);

    if (r == 0 && place >= QCOW2_HEADER_SECTOR) {
        r = file_write(q->file, place, name, strlen(name));
        if (r == 0)
            r = file_sync(q->file);
    }
    if (r)
        return r;
    memcpy(old, q->header, sizeof(old));
    memcpy(q->header, sector, sizeof(sector));
    q->bitmaps_there = bitmaps != NULL;
    r = qcow2_header_write(q);
    if (r == 0)
        r = file_sync(q->file);
    if (r == 0)
        return 0;
    memcpy(q->header, old, sizeof(old));
    q->bitmaps_there = had_bitmaps;
    (void)qcow2_header_restore(q);
    return r;
}

/* The extension as it is, or NULL. */
static const uint8_t *bitmaps_of(const struct qcow2 *q, const uint8_t *head)
{
    uint32_t n;
    const uint8_t *e =
        q->version < 3 ? NULL
                       : qcow2_header_extension(head, q->cluster_size, qcow2_be32(head + 100), QCOW2_EXT_BITMAPS, &n);

    return e && n >= QCOW2_EXT_BITMAPS_BYTES && q->bitmaps_there ? e : NULL;
}

int qcow2_header_bitmaps(struct qcow2 *q, uint32_t n, uint64_t bytes, uint64_t offset)
{
    uint8_t extension[QCOW2_EXT_BITMAPS_BYTES] = {0}, *head = malloc(q->cluster_size);
    int r = head ? file_read(q->file, 0, head, q->cluster_size) : -ENOMEM;

    qcow2_put_be32(extension, n);
    qcow2_put_be64(extension + 8, bytes);
    qcow2_put_be64(extension + 16, offset);
    if (r == 0)
        r = switch_sector(q, head, q->backing_name, q->backing_format, n ? extension : NULL);
    free(head);
    return r;
}

static int set(struct disk *disk, const char *name, const char *format, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;

    if (name && (strlen(name) > MAX_NAME || !*name))
        return err_set(err, -ENAMETOOLONG,
                       "disk '%.200s': backing file '%.60s...': accepted are names of 1 to %d bytes", disk->path, name,
                       MAX_NAME);
    if (q->broken)
        return err_set(err, -EIO, "disk '%.200s': the image is corrupt", disk->path);
    uint8_t *head = malloc(q->cluster_size);
    if (!head)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    int r = qcow2_settle(q);
    if (r == 0)
        r = file_read(q->file, 0, head, q->cluster_size);
    if (r == 0)
        r = switch_sector(q, head, name, format ? format : "", bitmaps_of(q, head));
    free(head);
    if (r == -ENOSPC)
        return err_set(err, r, "disk '%.200s': the header has no room for the backing file's name", disk->path);
    return r ? err_set(err, r, "disk '%.200s': the header cannot be written: %s", disk->path, strerror(-r)) : 0;
}

/* What reads through to the backing file afterwards is the same: so it does not matter where this ends. */
static int empty(struct disk *disk, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    int r = qcow2_inner_wait(q, DISK_DISCARD, 0, align_up(disk->size, q->cluster_size), true);

    if (r == 0)
        r = qcow2_settle(q);
    return r ? err_set(err, r, "disk '%.200s': cannot be emptied: %s", disk->path, strerror(-r)) : 0;
}

const struct disk_backing_ops qcow2_backing_ops = {
    .get = get, .name = name_of, .expect = expect, .set = set, .empty = empty};
