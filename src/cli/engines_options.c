#include "cli/engines_options.h"

static const struct option_spec specs[] = {
#define OPTION(field, kind, name, argument, fallback, help) \
    {name, OPTION_##kind, argument, fallback, help, offsetof(struct engines_options, field)},
#include "cli/engines_options.def"
#undef OPTION
};

const struct option_table engines_option_table = {specs, ARRAY_SIZE(specs)};
