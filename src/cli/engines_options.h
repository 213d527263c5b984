/* The options of `vireo engines` as a struct, from engines_options.def. */
#ifndef CLI_ENGINES_OPTIONS_H
#define CLI_ENGINES_OPTIONS_H

#include "cli/option.h"

struct engines_options {
#define OPTION(field, kind, name, argument, fallback, help) OPTION_TYPE_##kind field;
#include "cli/engines_options.def"
#undef OPTION
};

extern const struct option_table engines_option_table;

#endif
