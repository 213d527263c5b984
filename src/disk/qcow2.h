/*
 * qcow2, versions 2 and 3 (QEMU's docs/interop/qcow2.txt): a thin image that takes the room its guest wrote.
 *
 * Not known here, and refused by name: backing files, encryption, external data files, extended L2 entries, and incompatible features that
 * nobody has named yet. An image that is marked corrupt is only read. Internal snapshots are kept: what they share is copied before it is
 * written. Persistent bitmaps are kept and go on recording (qcow2_bitmap.h).
 */
#ifndef DISK_QCOW2_H
#define DISK_QCOW2_H

#include "disk/disk.h"

#endif
