#include "cli/run_options.h"

static const struct option_spec specs[] = {
#define OPTION(field, kind, name, argument, fallback, help) \
    {name, OPTION_##kind, argument, fallback, help, offsetof(struct run_options, field)},
#include "cli/run_options.def"
#undef OPTION
};

const struct option_table run_option_table = {specs, ARRAY_SIZE(specs)};
