/*
 * Numbers as people write them on command lines and in specifications.
 */
#ifndef BASE_NUMBER_H
#define BASE_NUMBER_H

#include <stdbool.h>

#include "base/util.h"

/* Decimal digits at *p: their value, and *p behind them; false where there are none or they are beyond 64 bits. */
bool number_take(const char **p, uint64_t *value);

/* All of `text`: digits, or digits and a suffix K, M, G or T in powers of 1024. */
bool number_size(const char *text, uint64_t *value);

#endif
