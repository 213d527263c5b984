#include "cli/ctl_options.h"

static const struct option_spec specs[] = {
#define OPTION(field, kind, name, argument, fallback, help) \
    {name, OPTION_##kind, argument, fallback, help, offsetof(struct ctl_options, field)},
#include "cli/ctl_options.def"
#undef OPTION
};

const struct option_table ctl_option_table = {specs, ARRAY_SIZE(specs)};
