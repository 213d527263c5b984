/*
 * Specifications such as "disk.qcow2,format=qcow2,readonly,iops=500": a first word, and then keys with values, by a table. Pure.
 */
#ifndef BASE_KEYVAL_H
#define BASE_KEYVAL_H

#include <stdbool.h>

#include "base/err.h"

#define KEYVAL_TEXT_MAX 256 /* with its end; for KEYVAL_TEXT */
#define KEYVAL_PATH_MAX 4096

enum keyval_kind {
    KEYVAL_FIRST, /* char[KEYVAL_PATH_MAX]: what stands before the first comma, without a key; name is what errors call it */
    KEYVAL_TEXT,   /* char[KEYVAL_TEXT_MAX], not empty */
    KEYVAL_PATH,   /* char[KEYVAL_PATH_MAX], not empty */
    KEYVAL_NUMBER, /* uint64_t, from least to most */
    KEYVAL_SIZE,   /* uint64_t, the same, and K, M, G or T may follow */
    KEYVAL_CHOICE, /* int: the index of the word in choices, "a|b|c"; "on|off" is 0 and 1, so use KEYVAL_SWITCH for that */
    KEYVAL_SWITCH, /* bool: "on" or "off" */
    KEYVAL_FLAG,   /* bool: true when the key is there; takes no value */
    KEYVAL_LIST,   /* struct keyval_list: the key may stand several times */
};

#define KEYVAL_LIST_MAX 16

struct keyval_list {
    unsigned n;
    char items[KEYVAL_LIST_MAX][KEYVAL_TEXT_MAX];
};

struct keyval_key {
    const char *name;
    enum keyval_kind kind;
    size_t offset; /* of the value in the caller's struct */
    uint64_t least, most;
    const char *choices;
};

struct keyval_table {
    const char *what; /* what errors begin with, such as "disk" */
    const struct keyval_key *keys;
    size_t n;
};

/*
 * Reads `spec` into `values`, which holds the defaults; what is not in the spec stays. A key twice, an unknown one (the message lists those
 * that there are), a value that does not fit, a missing KEYVAL_FIRST: -EINVAL and one line. A comma in a value is written twice.
 */
int keyval_parse(const struct keyval_table *table, const char *spec, void *values, struct err *err) MUST_CHECK;

#endif
