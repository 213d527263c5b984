/*
 * Messages for the person who runs vireo, on standard error, one line each but for log_text(). The level is the process's only
 * mutable global. While the terminal is raw, the console asks for carriage returns with log_set_raw().
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

#include "base/util.h"

enum log_level { LOG_LEVEL_NONE, LOG_LEVEL_ERROR, LOG_LEVEL_NOTICE, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
void log_set_raw(bool raw);
bool log_is_raw(void);
void log_at(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Lines as they are, at any level: what belongs to the error before them. */
void log_text(const char *lines);

#define log_error(...)  log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_notice(...) log_at(LOG_LEVEL_NOTICE, __VA_ARGS__) /* no complaint: something to know, such as an address */
#define log_warn(...)   log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)   log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)  log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
