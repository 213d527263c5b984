#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>

#define ENGINE_EXIT_TEXT(name, text) text,
const char *const engine_exit_names[ENGINE_N_EXITS] = {ENGINE_EXIT_REASONS(ENGINE_EXIT_TEXT)};

#define ENGINE_TRANSLATOR_TEXT(name, text) text,
const char *const engine_translator_names[ENGINE_N_TRANSLATOR] = {ENGINE_TRANSLATOR_COUNTS(ENGINE_TRANSLATOR_TEXT)};

#define HOST(name, kind, probe)
#define ENGINE(name, kind) extern const struct engine_type name##_engine;
#include "engine/engines.def"
#undef ENGINE

#define ENGINE(name, kind) &name##_engine,
static const struct engine_type *const engines[] = {
#include "engine/engines.def"
};
#undef ENGINE
#undef HOST

const struct engine_type *engine_find(const char *name, struct err *err)
{
    bool any = strcmp(name, "auto") == 0;
    char names[128] = "auto";

    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        if (any && engines[i]->probe(NULL) == 0)
            return engines[i];
        if (strcmp(name, engines[i]->name) == 0)
            return engines[i]->probe(err) == 0 ? engines[i] : NULL;
        size_t n = strlen(names);
        snprintf(names + n, sizeof(names) - n, ", %s", engines[i]->name);
    }
    err_set(err, -EINVAL, "engine '%s': must be one of %s", name, names);
    return NULL;
}
