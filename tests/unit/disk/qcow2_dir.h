/* A directory of a test's own, and qemu-img to have another opinion of what is in it. */
#ifndef TESTS_UNIT_DISK_QCOW2_DIR_H
#define TESTS_UNIT_DISK_QCOW2_DIR_H

#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "../unit.h"
#include "base/log.h"

/* What fails on purpose says so: only VIREO_TEST_LOG lets it. */
static inline void qcow2_dir_quiet(void)
{
    log_set_level(getenv("VIREO_TEST_LOG") ? LOG_LEVEL_ERROR : LOG_LEVEL_NONE);
}

/* dir: "/tmp/vireo-NAME-XXXXXX", filled in. Quiet too. */
static inline int qcow2_dir_make(char *dir)
{
    qcow2_dir_quiet();
    assert_non_null(mkdtemp(dir));
    return 0;
}

static inline int qcow2_dir_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static inline int qcow2_dir_remove(const char *dir)
{
    return nftw(dir, qcow2_dir_remove_one, 4, FTW_DEPTH | FTW_PHYS);
}

/* By the shell: what system() returns. */
PRINTF_LIKE(1, 2) static inline int qcow2_dir_run(const char *fmt, ...)
{
    char command[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    return system(command);
}

static inline bool qcow2_dir_have_qemu(void)
{
    return qcow2_dir_run("qemu-img --version >/dev/null 2>&1") == 0;
}

#endif
