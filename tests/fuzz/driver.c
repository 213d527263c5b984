/*
 * Runs a fuzz target without libFuzzer: every file given (or in a directory given), then mutations of them.
 *
 *   fuzz_TARGET [--seconds N] [--seed S] PATH...
 *
 * An input that crashes lies in crash-TARGET afterwards: it is written before each mutated run into a shared mapping of that file, which
 * is removed at a good end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "fuzz.h"
#include "oracle/rng.h"

#define INPUT_MAX  65536
#define MAX_CORPUS 1024

struct input {
    uint8_t *data;
    size_t size;
};

struct driver {
    struct input corpus[MAX_CORPUS];
    size_t n;
    struct rng rng;
    uint8_t *crash; /* mapping of the crash file: size, then data */
    char crash_path[256];
    uint64_t runs;
};

static int add_file(struct driver *d, const char *path)
{
    FILE *f = fopen(path, "re");

    if (!f || d->n == MAX_CORPUS) {
        fprintf(stderr, "%s: %s\n", path, f ? "one input too many" : strerror(errno));
        if (f)
            fclose(f);
        return -1;
    }
    struct input *in = &d->corpus[d->n];
    in->data = malloc(INPUT_MAX);
    in->size = in->data ? fread(in->data, 1, INPUT_MAX, f) : 0;
    d->n += in->data != NULL;
    fclose(f);
    return 0;
}

static int add_path(struct driver *d, const char *path)
{
    struct stat st;
    char name[4096];
    int r = 0;

    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return add_file(d, path);
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    for (struct dirent *e = readdir(dir); e && !r; e = readdir(dir))
        if (e->d_name[0] != '.') {
            snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
            r = add_file(d, name);
        }
    closedir(dir);
    return r;
}

/* One small change; returns the new size. */
static size_t mutate_once(struct driver *d, uint8_t *p, size_t size)
{
    struct rng *rng = &d->rng;
    size_t at = size ? rng_below(rng, (unsigned)size) : 0, left = size - at, n = 1 + rng_below(rng, 16);
    uint64_t edge = rng_edge(rng);
    unsigned width = 1u << rng_below(rng, 4);

    switch (rng_below(rng, 7)) {
    case 0:
        if (size)
            p[at] ^= (uint8_t)(1u << rng_below(rng, 8));
        return size;
    case 1:
        if (size)
            p[at] = (uint8_t)rng_next(rng);
        return size;
    case 2:
    case 3: /* a field set to a value on which something turns */
        if (left >= width)
            memcpy(p + at, &edge, width);
        return size;
    case 4: /* cut */
        if (left <= n)
            return at;
        memmove(p + at, p + at + n, left - n);
        return size - n;
    case 5: /* insert */
        if (size + n > INPUT_MAX)
            return size;
        memmove(p + at + n, p + at, left);
        for (size_t i = 0; i < n; i++)
            p[at + i] = (uint8_t)rng_next(rng);
        return size + n;
    default: { /* a piece of another input */
        const struct input *other = &d->corpus[rng_below(rng, (unsigned)d->n)];
        size_t from = other->size ? rng_below(rng, (unsigned)other->size) : 0;
        size_t len = other->size - from < left ? other->size - from : left;
        memcpy(p + at, other->data + from, len < 64 ? len : 64);
        return size;
    }
    }
}

static void run_mutation(struct driver *d)
{
    uint8_t *p = d->crash + 8;
    const struct input *in = &d->corpus[rng_below(&d->rng, (unsigned)d->n)];
    size_t size = in->size;

    memcpy(p, in->data, size);
    for (unsigned n = 1 + rng_below(&d->rng, 12); n; n--)
        size = mutate_once(d, p, size);
    store_le64(d->crash, size);
    /* A copy of exactly that size, so that the sanitizer sees a read behind its end. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return;
    memcpy(copy, p, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    d->runs++;
}

static int open_crash_file(struct driver *d, const char *argv0)
{
    const char *slash = strrchr(argv0, '/');

    snprintf(d->crash_path, sizeof(d->crash_path), "crash-%s", slash ? slash + 1 : argv0);
    int fd = open(d->crash_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, INPUT_MAX + 8))
        return -errno;
    d->crash = mmap(NULL, INPUT_MAX + 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return d->crash == MAP_FAILED ? -ENOMEM : 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'r'}, {0}};
    static struct driver d;
    long seconds = 0;
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == 's')
            seconds = atol(optarg);
        else if (opt == 'r')
            d.rng.state = strtoull(optarg, NULL, 0);
        else
            return 2;
    }
    for (int i = optind; i < argc; i++)
        if (add_path(&d, argv[i]))
            return 2;
    if (!d.n) {
        fprintf(stderr, "usage: %s [--seconds N] [--seed S] PATH...: no inputs\n", argv[0]);
        return 2;
    }
    if (open_crash_file(&d, argv[0])) {
        fprintf(stderr, "%s: cannot be written\n", d.crash_path);
        return 1;
    }
    LLVMFuzzerInitialize(&argc, &argv);
    for (size_t i = 0; i < d.n; i++, d.runs++)
        LLVMFuzzerTestOneInput(d.corpus[i].data, d.corpus[i].size);
    time_t end = time(NULL) + seconds;
    while (time(NULL) < end)
        for (unsigned i = 0; i < 16; i++)
            run_mutation(&d);
    unlink(d.crash_path);
    printf("%llu passed, 0 failed\n", (unsigned long long)d.runs);
    return 0;
}
