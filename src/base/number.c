#include "base/number.h"

#include <ctype.h>

bool number_take(const char **p, uint64_t *value)
{
    const char *start = *p;

    *value = 0;
    for (; isdigit((unsigned char)**p); (*p)++)
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, (uint64_t)(**p - '0'), value))
            return false;
    return *p > start;
}

bool number_size(const char *text, uint64_t *value)
{
    static const char suffixes[] = "KMGT";
    const char *p = text;

    bool ok = number_take(&p, value);
    if (ok && *p) {
        const char *suffix = strchr(suffixes, toupper((unsigned char)*p));
        ok = suffix && !p[1] && !__builtin_mul_overflow(*value, UINT64_C(1) << (10 * (suffix - suffixes + 1)), value);
    }
    return ok;
}
