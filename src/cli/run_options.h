/* The options of `vireo run` as a struct, from run_options.def. */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H

#include "cli/option.h"

struct run_options {
#define OPTION(field, kind, name, argument, fallback, help) OPTION_TYPE_##kind field;
#include "cli/run_options.def"
#undef OPTION
};

extern const struct option_table run_option_table;

#endif
