/* The options of `vireo ctl` as a struct, from ctl_options.def. */
#ifndef CLI_CTL_OPTIONS_H
#define CLI_CTL_OPTIONS_H

#include "cli/option.h"

struct ctl_options {
#define OPTION(field, kind, name, argument, fallback, help) OPTION_TYPE_##kind field;
#include "cli/ctl_options.def"
#undef OPTION
};

extern const struct option_table ctl_option_table;

#endif
