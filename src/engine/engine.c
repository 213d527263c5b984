#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>

#define ENGINE_EXIT_TEXT(name, text) text,
const char *const engine_exit_names[ENGINE_N_EXITS] = {ENGINE_EXIT_REASONS(ENGINE_EXIT_TEXT)};

#define ENGINE_TRANSLATOR_TEXT(name, text) text,
const char *const engine_translator_names[ENGINE_N_TRANSLATOR] = {ENGINE_TRANSLATOR_COUNTS(ENGINE_TRANSLATOR_TEXT)};

#define ENGINE(name, kind) extern const struct engine_type name##_engine;
#include "engine/engines.def"
#undef ENGINE

#define ENGINE(name, kind) &name##_engine,
static const struct engine_type *const engines[] = {
#include "engine/engines.def"
};
#undef ENGINE

const struct engine_type *engine_find(const char *name, struct err *err)
{
    bool any = strcmp(name, "auto") == 0;
    char names[128] = "auto";
    uint64_t rate;

    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        if (any ? engines[i]->probe(&rate, NULL) == 0 : strcmp(name, engines[i]->name) == 0)
            return engines[i];
        size_t n = strlen(names);
        snprintf(names + n, sizeof(names) - n, ", %s", engines[i]->name);
    }
    err_set(err, -EINVAL, "engine '%s': must be one of %s", name, names);
    return NULL;
}
