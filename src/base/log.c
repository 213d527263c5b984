#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static _Atomic int log_level = LOG_LEVEL_WARN;
static _Atomic bool log_raw;

void log_set_level(enum log_level level)
{
    atomic_store(&log_level, (int)level);
}

void log_set_raw(bool raw)
{
    atomic_store(&log_raw, raw);
}

bool log_is_raw(void)
{
    return atomic_load(&log_raw);
}

void log_at(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"", "", "warning: ", "info: ", "debug: "};
    char line[1024];
    va_list ap;

    if ((int)level > atomic_load(&log_level))
        return;
    int n = snprintf(line, sizeof(line), "vireo: %s", names[level]);
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    if ((size_t)n > sizeof(line) - 3)
        n = sizeof(line) - 3;
    if (atomic_load(&log_raw))
        line[n++] = '\r';
    line[n++] = '\n';

    /* One write, so that lines of different threads do not mix. */
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
}
