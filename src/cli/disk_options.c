#include "cli/disk_options.h"

#define OPTION(field, kind, name, argument, fallback, help) \
    {name, OPTION_##kind, argument, fallback, help, offsetof(struct OF, field)},
#define TABLE(name) const struct option_table disk_##name##_option_table = {name##_specs, ARRAY_SIZE(name##_specs)}

#define OF disk_backup_options
static const struct option_spec backup_specs[] = {
#include "cli/disk_backup_options.def"
};
TABLE(backup);
#undef OF

#define OF disk_restore_options
static const struct option_spec restore_specs[] = {
#include "cli/disk_restore_options.def"
};
TABLE(restore);
#undef OF

#define OF disk_bench_options
static const struct option_spec bench_specs[] = {
#include "cli/disk_bench_options.def"
};
TABLE(bench);
#undef OF

#define OF disk_create_options
static const struct option_spec create_specs[] = {
#include "cli/disk_create_options.def"
};
TABLE(create);
#undef OF

#define OF disk_resize_options
static const struct option_spec resize_specs[] = {
#include "cli/disk_resize_options.def"
};
TABLE(resize);
#undef OF

#define OF disk_convert_options
static const struct option_spec convert_specs[] = {
#include "cli/disk_convert_options.def"
};
TABLE(convert);
#undef OF

#define OF disk_compare_options
static const struct option_spec compare_specs[] = {
#include "cli/disk_compare_options.def"
};
TABLE(compare);
#undef OF

#define OF disk_commit_options
static const struct option_spec commit_specs[] = {
#include "cli/disk_commit_options.def"
};
TABLE(commit);
#undef OF

#define OF disk_map_options
static const struct option_spec map_specs[] = {
#include "cli/disk_map_options.def"
};
TABLE(map);
#undef OF

#define OF disk_rebase_options
static const struct option_spec rebase_specs[] = {
#include "cli/disk_rebase_options.def"
};
TABLE(rebase);
#undef OF

#define OF disk_check_options
static const struct option_spec check_specs[] = {
#include "cli/disk_check_options.def"
};
TABLE(check);
#undef OF

#define OF disk_info_options
static const struct option_spec info_specs[] = {
#include "cli/disk_info_options.def"
};
TABLE(info);
#undef OF

#define OF disk_snapshot_options
static const struct option_spec snapshot_specs[] = {
#include "cli/disk_snapshot_options.def"
};
TABLE(snapshot);
#undef OF

static const struct option_spec disk_specs[] = {
    {"words", OPTION_WORDS, "COMMAND ...", NULL, "what to do, and the image to do it to", 0},
};
const struct option_table disk_option_table = {disk_specs, ARRAY_SIZE(disk_specs)};
