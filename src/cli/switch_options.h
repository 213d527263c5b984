/* The options of `vireo switch` as a struct, from switch_options.def. */
#ifndef CLI_SWITCH_OPTIONS_H
#define CLI_SWITCH_OPTIONS_H

#include "cli/option.h"

struct switch_options {
#define OPTION(field, kind, name, argument, fallback, help) OPTION_TYPE_##kind field;
#include "cli/switch_options.def"
#undef OPTION
};

extern const struct option_table switch_option_table;

#endif
