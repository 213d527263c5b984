#include "cli/switch_options.h"

static const struct option_spec specs[] = {
#define OPTION(field, kind, name, argument, fallback, help) \
    {name, OPTION_##kind, argument, fallback, help, offsetof(struct switch_options, field)},
#include "cli/switch_options.def"
#undef OPTION
};

const struct option_table switch_option_table = {specs, ARRAY_SIZE(specs)};
