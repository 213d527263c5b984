/* Specifications of keys and values: what is read, and what is refused with which words. */
#include "base/keyval.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit.h"

struct values {
    char path[KEYVAL_PATH_MAX], text[KEYVAL_TEXT_MAX], file[KEYVAL_PATH_MAX];
    uint64_t number, size;
    int choice;
    bool toggle, flag;
    struct keyval_list list;
};

static const struct keyval_key keys[] = {
    {"a file's name", KEYVAL_FIRST, offsetof(struct values, path)},
    {"text", KEYVAL_TEXT, offsetof(struct values, text)},
    {"file", KEYVAL_PATH, offsetof(struct values, file)},
    {"number", KEYVAL_NUMBER, offsetof(struct values, number), 3, 9},
    {"size", KEYVAL_SIZE, offsetof(struct values, size), 1, UINT64_C(1) << 40},
    {"choice", KEYVAL_CHOICE, offsetof(struct values, choice), .choices = "one|two|three"},
    {"switch", KEYVAL_SWITCH, offsetof(struct values, toggle)},
    {"flag", KEYVAL_FLAG, offsetof(struct values, flag)},
    {"list", KEYVAL_LIST, offsetof(struct values, list)},
};
static const struct keyval_table table = {"thing", keys, ARRAY_SIZE(keys)};
static const struct keyval_table no_first = {"thing", keys + 1, ARRAY_SIZE(keys) - 1};

static struct values v;

static void read_ok(const struct keyval_table *t, const char *spec)
{
    struct err err = {0};

    memset(&v, 0, sizeof(v));
    if (keyval_parse(t, spec, &v, &err) != 0)
        fail_msg("'%s': %s", spec, err.msg);
}

/* Refused, in one line that has `words`. */
static void refused(const struct keyval_table *t, const char *spec, const char *words)
{
    struct err err = {0};

    memset(&v, 0, sizeof(v));
    assert_int_equal(keyval_parse(t, spec, &v, &err), -EINVAL);
    if (!strstr(err.msg, words) || strncmp(err.msg, t->what, strlen(t->what)) != 0 || strchr(err.msg, '\n'))
        fail_msg("'%s': %s", spec, err.msg);
}

static void test_reads(void **state)
{
    read_ok(&table, "disk.raw,text=a=b,file=/x,number=3,size=2M,choice=three,switch=on,flag,list=1,list=2");
    assert_string_equal(v.path, "disk.raw");
    assert_string_equal(v.text, "a=b");
    assert_string_equal(v.file, "/x");
    assert_int_equal(v.number, 3);
    assert_int_equal(v.size, 2 * MIB);
    assert_int_equal(v.choice, 2);
    assert_true(v.toggle);
    assert_true(v.flag);
    assert_int_equal(v.list.n, 2);
    assert_string_equal(v.list.items[1], "2");
    read_ok(&table, "a");
    assert_false(v.flag);
    read_ok(&table, "a,switch=off,size=7");
    assert_false(v.toggle);
    assert_int_equal(v.size, 7);
    read_ok(&no_first, "");
    read_ok(&no_first, "flag");
    assert_true(v.flag);
}

static void test_defaults_stay(void **state)
{
    v = (struct values){.number = 5, .toggle = true, .choice = 1};
    assert_int_equal(keyval_parse(&table, "a,flag", &v, NULL), 0);
    assert_int_equal(v.number, 5);
    assert_int_equal(v.choice, 1);
    assert_true(v.toggle);
}

static void test_commas(void **state)
{
    read_ok(&table, "a,,b,text=c,,,,d,flag");
    assert_string_equal(v.path, "a,b");
    assert_string_equal(v.text, "c,,d");
    assert_true(v.flag);
    read_ok(&table, "a,,,flag");
    assert_string_equal(v.path, "a,");
    assert_true(v.flag);
    read_ok(&table, "a,text=b,,");
    assert_string_equal(v.text, "b,");
    refused(&table, "a,flag,", "'' is no key");
    refused(&table, "a,", "'' is no key");
    refused(&no_first, ",flag", "''");
}

static void test_keys(void **state)
{
    refused(&table, "", "begins without a file's name");
    refused(&table, ",flag", "begins without a file's name");
    refused(&table, "a,nonsense=1", "'nonsense=1' is no key; accepted are text=, file=");
    refused(&table, "a,nonsense", "flag, list=");
    refused(&table, "a,tex=1", "no key");
    refused(&table, "a,text2=1", "no key");
    refused(&table, "a,a file's name=1", "no key");
    refused(&table, "a,number=4,number=4", "number stands there twice");
    refused(&table, "a,flag,flag", "twice");
    refused(&table, "a,flag=on", "takes no value");
    refused(&table, "a,number", "needs a value");
}

static void test_values(void **state)
{
    refused(&table, "a,number=2", "number='2': accepted is a number from 3 to 9");
    refused(&table, "a,number=10", "from 3 to 9");
    refused(&table, "a,number=", "from 3 to 9");
    refused(&table, "a,number=-4", "from 3 to 9");
    refused(&table, "a,number=4x", "from 3 to 9");
    refused(&table, "a,number=4K", "from 3 to 9");
    refused(&table, "a,number=18446744073709551620", "from 3 to 9");
    refused(&table, "a,size=0", "suffix");
    refused(&table, "a,size=2Mi", "suffix");
    refused(&table, "a,size=18446744073709551615T", "suffix");
    refused(&table, "a,size=2T", "suffix");
    refused(&table, "a,choice=four", "accepted is one|two|three");
    refused(&table, "a,choice=on", "accepted is one|two|three");
    refused(&table, "a,choice=", "accepted is one|two|three");
    refused(&table, "a,switch=yes", "accepted is on|off");
    refused(&table, "a,text=", "1 to 255 characters");
    refused(&table, "a,list=", "1 to 255 characters");
}

static void test_lengths(void **state)
{
    static char spec[3 * KEYVAL_PATH_MAX];
    static char longest[KEYVAL_PATH_MAX];

    memset(longest, 'x', sizeof(longest) - 1);
    read_ok(&table, longest);
    assert_string_equal(v.path, longest);
    snprintf(spec, sizeof(spec), "a,file=%s", longest);
    read_ok(&table, spec);
    snprintf(spec, sizeof(spec), "a,file=%sx", longest);
    refused(&table, spec, "1 to 4095 characters");
    snprintf(spec, sizeof(spec), "a,text=%.256s", longest);
    refused(&table, spec, "1 to 255 characters");
    snprintf(spec, sizeof(spec), "a,%s%s", longest, longest);
    refused(&table, spec, "too long");

    int n = snprintf(spec, sizeof(spec), "a");
    for (unsigned i = 0; i < KEYVAL_LIST_MAX; i++)
        n += snprintf(spec + n, sizeof(spec) - (size_t)n, ",list=%u", i);
    read_ok(&table, spec);
    assert_int_equal(v.list.n, KEYVAL_LIST_MAX);
    snprintf(spec + n, sizeof(spec) - (size_t)n, ",list=z");
    refused(&table, spec, "up to 16 times");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads), cmocka_unit_test(test_defaults_stay), cmocka_unit_test(test_commas),
        cmocka_unit_test(test_keys),  cmocka_unit_test(test_values),        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests_name("keyval", tests, NULL, NULL);
}
