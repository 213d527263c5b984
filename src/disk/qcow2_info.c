/* What an image says of itself. */
#include <stdio.h>

#include "disk/disk_info.h"
#include "disk/qcow2_impl.h"

void qcow2_info(const struct disk *disk, struct disk_info *info)
{
    const struct qcow2 *q = (const struct qcow2 *)disk;

    info->file_size = file_size(q->file);
    info->cluster_size = (uint32_t)q->cluster_size;
    info->version = q->version;
    info->refcount_bits = 1u << q->refcount_order;
    snprintf(info->compression, sizeof(info->compression), "%s", q->compression ? "zstd" : "zlib");
    info->extended_l2 = q->incompatible & QCOW2_EXTENDED_L2;
    info->lazy_refcounts = q->version >= 3 && qcow2_be64(q->header + 80) & QCOW2_LAZY_REFCOUNTS;
    info->dirty = q->incompatible & QCOW2_DIRTY;
    info->corrupt = q->incompatible & QCOW2_CORRUPT;
    if (q->backing_name)
        snprintf(info->backing, sizeof(info->backing), "%s", q->backing_name);
    snprintf(info->backing_format, sizeof(info->backing_format), "%s", q->backing_format);
    info->n_bitmaps = qcow2_bitmap_number(q);
    info->n_snapshots = q->n_snapshots;
}
