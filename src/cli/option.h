/*
 * Command-line options from a table: the kinds there are, how their values are read, and the parser. Pure: nothing is opened, and
 * there is no state.
 */
#ifndef CLI_OPTION_H
#define CLI_OPTION_H

#include <stdbool.h>

#include "base/err.h"
#include "x86/cpuid.h"

/* Each kind's C type follows; the parser stores one of those. */
enum option_kind {
    OPTION_TEXT,
    OPTION_ENGINE,
    OPTION_FILE,      /* a path to read */
    OPTION_OUTPUT,    /* a path to write */
    OPTION_CPU,       /* a model of x86/cpu_models.def */
    OPTION_CONSOLE,   /* as console_check() takes it */
    OPTION_SIZE,      /* bytes of guest RAM */
    OPTION_CODE_SIZE, /* bytes of translated code */
    OPTION_COUNT,     /* of vCPUs */
    OPTION_BYTES,     /* any size, of a disk or a part of one */
    OPTION_NUMBER,    /* a whole number; 0 is one too */
    OPTION_CHOICE,    /* one of the words in `argument`, "a|b|c"; kept as its index */
    OPTION_SECONDS,   /* given in seconds, kept in nanoseconds */
    OPTION_FLAG,      /* takes no value */
    OPTION_LOCKSTEP,
    OPTION_TRACE,   /* kept as TRACE_ bits */
    OPTION_GDB,     /* as gdb_stub_check() takes it */
    OPTION_CONTROL, /* as control_check() takes it */
    OPTION_ATTACH,  /* as attach_check() takes it for the kind of the option's name; may be given several times */
    OPTION_LIST,    /* may be given several times; each is text */
    OPTION_WORDS,   /* what stands without an option; the name is what errors and help call it */
};

#define OPTION_TYPE_TEXT      const char *
#define OPTION_TYPE_ENGINE    const char *
#define OPTION_TYPE_FILE      const char *
#define OPTION_TYPE_OUTPUT    const char *
#define OPTION_TYPE_CPU       enum x86_cpu_model
#define OPTION_TYPE_CONSOLE   const char *
#define OPTION_TYPE_SIZE      uint64_t
#define OPTION_TYPE_CODE_SIZE uint64_t
#define OPTION_TYPE_COUNT     unsigned
#define OPTION_TYPE_BYTES     uint64_t
#define OPTION_TYPE_NUMBER    uint64_t
#define OPTION_TYPE_CHOICE    int
#define OPTION_TYPE_SECONDS   int64_t
#define OPTION_TYPE_FLAG      bool
#define OPTION_TYPE_GDB       const char *
#define OPTION_TYPE_TRACE     unsigned
#define OPTION_TYPE_LOCKSTEP  struct option_lockstep
#define OPTION_TYPE_CONTROL   const char *
#define OPTION_TYPE_ATTACH    struct option_list
#define OPTION_TYPE_LIST      struct option_list
#define OPTION_TYPE_WORDS     struct option_list

#define OPTION_LIST_MAX 64

struct option_list {
    unsigned n;
    const char *items[OPTION_LIST_MAX];
};

/* ENGINE[,every=BLOCKS][,memory=INSTRUCTIONS][,from=SECONDS], see engine/lockstep/lockstep.h */
struct option_lockstep {
    char follower[32]; /* or "" */
    unsigned every;
    uint64_t memory_every;
    int64_t from_ns;
};

struct option_spec {
    const char *name; /* without the dashes */
    enum option_kind kind;
    const char *argument; /* see option_argument(); NULL where the kind says it */
    const char *fallback; /* the value where none is given, or NULL */
    const char *help;
    size_t offset; /* of the value in the command's own struct */
};

struct option_table {
    const struct option_spec *specs;
    size_t n;
};

/* What --help calls the option's value, such as "FILE" or "auto|interp"; NULL for a flag. */
const char *option_argument(const struct option_spec *spec);

/*
 * Reads argv into `values`, the command's struct; defaults first. Takes "--name VALUE" and "--name=VALUE"; the last of several counts.
 * *help: --help was among them, and the rest does not matter. -EINVAL, with a message, for wrong use.
 */
int option_parse(const struct option_table *table, int argc, char **argv, void *values, bool *help,
                 struct err *err) MUST_CHECK;

/* The name in `names` that `word` is most likely a slip of, or NULL when none is near. */
const char *option_nearest(const char *word, const char *const *names, size_t n);

#endif
