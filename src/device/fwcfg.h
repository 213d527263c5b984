/*
 * fw_cfg: named blobs for firmware and guests (QEMU's docs/specs/fw_cfg.rst): selector at port 0x510, data at 0x511, DMA at 0x514.
 * Read-only to the guest.
 */
#ifndef DEVICE_FWCFG_H
#define DEVICE_FWCFG_H

#include "core/device.h"

/* Keys that are not files. Numbers of more than a byte are little-endian. */
enum fwcfg_key {
    FWCFG_SIGNATURE = 0x00,
    FWCFG_ID = 0x01,
    FWCFG_RAM_SIZE = 0x03,
    FWCFG_N_CPUS = 0x05,
    FWCFG_MAX_CPUS = 0x0f,
    FWCFG_FILE_DIR = 0x19,
    FWCFG_FIRST_FILE = 0x20,
};

#define FWCFG_MAX_FILES 32
#define FWCFG_NAME_SIZE 56 /* with its NUL */

struct fwcfg_conf {
    unsigned n_cpus;
};

extern const struct device_type fwcfg_type;

/*
 * Adds a file, whose bytes are copied; before the VM runs. -EINVAL where the name is too long, -EEXIST, -ENOSPC when there are too
 * many, -ENOMEM.
 */
int fwcfg_add_file(struct device *dev, const char *name, const void *data, uint32_t size, struct err *err) MUST_CHECK;

#endif
