/* The options of the commands of `vireo disk` as structs, each from its disk_NAME_options.def. */
#ifndef CLI_DISK_OPTIONS_H
#define CLI_DISK_OPTIONS_H

#include "cli/option.h"

#define OPTION(field, kind, name, argument, fallback, help) OPTION_TYPE_##kind field;

struct disk_backup_options {
#include "cli/disk_backup_options.def"
};

struct disk_restore_options {
#include "cli/disk_restore_options.def"
};

struct disk_bench_options {
#include "cli/disk_bench_options.def"
};

struct disk_create_options {
#include "cli/disk_create_options.def"
};

struct disk_resize_options {
#include "cli/disk_resize_options.def"
};

struct disk_convert_options {
#include "cli/disk_convert_options.def"
};

struct disk_compare_options {
#include "cli/disk_compare_options.def"
};

struct disk_commit_options {
#include "cli/disk_commit_options.def"
};

struct disk_map_options {
#include "cli/disk_map_options.def"
};

struct disk_rebase_options {
#include "cli/disk_rebase_options.def"
};

struct disk_check_options {
#include "cli/disk_check_options.def"
};

struct disk_info_options {
#include "cli/disk_info_options.def"
};

struct disk_snapshot_options {
#include "cli/disk_snapshot_options.def"
};

#undef OPTION

#define DISK_COMMAND(name, summary) extern const struct option_table disk_##name##_option_table;
#include "cli/disk_commands.def"
#undef DISK_COMMAND

/* Of `vireo disk` itself: none. */
extern const struct option_table disk_option_table;

#endif
