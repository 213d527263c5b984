#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    static const char *const names[] = {"", "", "", "warning: ", "info: ", "debug: "};
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

/* A carriage return before each newline; NULL: no memory. */
static char *with_returns(const char *lines)
{
    char *text = malloc(2 * strlen(lines) + 1), *to = text;

    if (!text)
        return NULL;
    for (; *lines; lines++) {
        if (*lines == '\n')
            *to++ = '\r';
        *to++ = *lines;
    }
    *to = '\0';
    return text;
}

void log_text(const char *lines)
{
    char *raw = atomic_load(&log_raw) ? with_returns(lines) : NULL;
    const char *text = raw ? raw : lines;
    size_t left = strlen(text);
    ssize_t n;

    /* At once where the descriptor takes it all, as in log_at(). */
    while (left && (n = write(STDERR_FILENO, text, left)) > 0) {
        text += n;
        left -= (size_t)n;
    }
    free(raw);
}
