/*
 * A thousand bad images, made from a seed: cut short, looped, overlapping, with huge tables, of other formats, with fields edited. Each is opened by a process of
 * its own that has 64 MiB and one second of the processor: it is refused by one line that names a field and its offset, or it is sound enough to be opened, and
 * then it is read, written and checked. VIREO_TEST_IMAGES: how many; VIREO_TEST_SEED: from where.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"
#include "base/log.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_check.h"
#include "disk/disk_snapshot.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "qcow2_world.h"

#define MEMORY (64 * MIB)
#define BIG    (32 * MIB) /* of an image with room for the biggest tables */

#if defined(__SANITIZE_ADDRESS__)
#define LIMITED false /* its own maps take all there is */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIMITED false
#endif
#endif
#ifndef LIMITED
#define LIMITED true
#endif

enum { REFUSED, OPENED, NO_LINE = 10, NO_FIELD, NO_ANSWER };

static char path[64];

static int set_up(void **state)
{
    log_set_level(LOG_LEVEL_NONE);
    snprintf(path, sizeof(path), "/tmp/vireo-bad-%d.qcow2", (int)getpid());
    return 0;
}

/* ---- good ones ---- */

static const struct disk_create_conf shapes[] = {
    {.size = 512 * KIB, .cluster_size = 512, .refcount_bits = 16},
    {.size = 1 * MIB, .cluster_size = 4096, .version = 2},
    {.size = 2 * MIB, .cluster_size = 65536},
    {.size = 1 * MIB, .cluster_size = 16384, .extended_l2 = true},
    {.size = 1 * MIB, .cluster_size = 4096, .refcount_bits = 1},
};

static struct fake *good[ARRAY_SIZE(shapes)];

/* With data, zeroes, snapshots and a bitmap, where its shape can. */
static struct fake *make_good(const struct disk_create_conf *shape, uint64_t seed)
{
    struct disk_create_conf conf = *shape;
    struct world w;
    struct err err = {""};

    unlink(path);
    conf.path = path;
    if (qcow2_create(&conf, &err))
        fail_msg("%s", err.msg);
    struct fake *fake = fake_load(path, seed);
    unlink(path);
    world_init(&w, fake, shape->size, seed);
    world_open(&w);
    world_run(&w, 20);
    (void)!disk_snapshot_create(w.disk, "one", 1, &err);
    (void)!disk_bitmap_create(w.disk, "map", 0, &err);
    world_run(&w, 20);
    (void)!disk_snapshot_create(w.disk, "two", 2, &err);
    world_close(&w);
    world_fini(&w);
    return fake;
}

/* ---- bad ones ---- */

static const struct {
    unsigned at, len;
} fields[] = {{0, 4},  {4, 4},  {8, 8},  {16, 4}, {20, 4}, {24, 8}, {32, 4},  {36, 4},  {40, 8},  {48, 8}, {56, 4},
              {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 1}, {112, 4}, {116, 4}};

static uint64_t random_64(uint64_t *seed)
{
    return (uint64_t)fake_random(seed) << 33 ^ (uint64_t)fake_random(seed) << 11 ^ fake_random(seed);
}

/* Something on which something may turn. */
static uint64_t edge(const struct fake *f, uint64_t *seed)
{
    uint64_t bits = fake_random(seed) % 64;

    switch (fake_random(seed) % 6) {
    case 0:
        return random_64(seed) >> bits;
    case 1:
        return (UINT64_C(1) << bits) - fake_random(seed) % 2;
    case 2:
        return random_64(seed) % (f->size + 1) & ~UINT64_C(511);
    case 3:
        return f->size + fake_random(seed) % 3 * 512 - 512;
    case 4:
        return fake_random(seed) % 8;
    default:
        return UINT64_MAX << bits;
    }
}

static void put(struct fake *f, uint64_t at, unsigned len, uint64_t value)
{
    for (unsigned i = 0; i < len && at + i < f->size; i++)
        f->data[at + i] = (uint8_t)(value >> 8 * (len - 1 - i));
}

static uint64_t get(const struct fake *f, uint64_t at)
{
    return at + 8 <= f->size ? qcow2_be64(f->data + at) : 0;
}

static void edit_header(struct fake *f, uint64_t *seed)
{
    unsigned n = 1 + fake_random(seed) % 2;

    while (n--) {
        size_t i = fake_random(seed) % ARRAY_SIZE(fields);
        put(f, fields[i].at, fields[i].len, edge(f, seed));
    }
}

/* Where some table begins: L1, refcounts, snapshots, an L2 table, a refcount block. */
static uint64_t some_table(const struct fake *f, uint64_t *seed)
{
    static const unsigned at[] = {40, 48, 64};
    uint64_t table = get(f, at[fake_random(seed) % 3]);

    if (fake_random(seed) % 2 == 0)
        return table;
    return get(f, table + fake_random(seed) % 4 * 8) & QCOW2_OFFSET_MASK;
}

static void edit_table(struct fake *f, uint64_t *seed)
{
    put(f, some_table(f, seed) + fake_random(seed) % 40 * 8, 8, edge(f, seed));
}

/* An entry refers to a table, maybe the one it is in. */
static void loop_table(struct fake *f, uint64_t *seed)
{
    uint64_t at = some_table(f, seed), to = fake_random(seed) % 2 ? at : some_table(f, seed);

    for (unsigned n = 1 + fake_random(seed) % 3 * 20; n--; at += 8)
        put(f, at, 8, to | (fake_random(seed) % 2 ? QCOW2_COPIED : 0));
}

static void overlap(struct fake *f, uint64_t *seed)
{
    static const unsigned at[] = {40, 48, 64, 8};

    put(f, at[fake_random(seed) % 4], 8, some_table(f, seed));
}

/* Tables as long as they may be, and longer, in a file that has room for them. */
static void huge(struct fake *f, uint64_t *seed)
{
    uint64_t cluster = UINT64_C(1) << f->data[23] % 32;

    switch (fake_random(seed) % 4) {
    case 0:
        put(f, 36, 4, (fake_random(seed) % 3 + 1) * MIB);
        put(f, 40, 8, align_up(BIG / 2, cluster));
        break;
    case 1:
        put(f, 56, 4, (4 * MIB + fake_random(seed) % 2 * 512) / cluster);
        put(f, 48, 8, align_up(BIG / 2, cluster));
        break;
    case 2:
        put(f, 60, 4, 60000 + fake_random(seed) % 10000);
        put(f, 64, 8, align_up(BIG / 2, cluster));
        break;
    default:
        put(f, 36, 4, 2 * MIB);
        put(f, 40, 8, align_up(BIG / 2, cluster));
        put(f, 56, 4, 4 * MIB / cluster);
        put(f, 48, 8, align_up(BIG / 4, cluster));
        break;
    }
    for (uint64_t at = BIG / 4; at + 8 <= BIG && fake_random(seed) % 2000; at += 8) /* some of it is filled */
        put(f, at, 8, (at / 8 - BIG / 32) * cluster % BIG | QCOW2_COPIED);
}

static struct fake *foreign(uint64_t *seed)
{
    static const char *const magics[] = {"KDMV",         "<<< Oracle VM VirtualBox Disk Image >>>\n",
                                         "vhdxfile",     "conectix",
                                         "QED",          "\177ELF",
                                         "\x1f\x8b\x08", "# Disk DescriptorFile\n",
                                         "LUKS\xba\xbe", "",
                                         "QFI\xfb",      "QFI\xfb"};
    static uint8_t bytes[65536];
    size_t i = fake_random(seed) % ARRAY_SIZE(magics),
           len = fake_random(seed) % 4 ? sizeof(bytes) : fake_random(seed) % 600;

    for (size_t k = 0; k < sizeof(bytes); k++)
        bytes[k] = fake_random(seed) % 3 ? 0 : (uint8_t)fake_random(seed);
    memcpy(bytes, magics[i], strlen(magics[i]));
    return fake_new(bytes, len, 1);
}

/* The seed's image; what kind it is. */
static struct fake *make_bad(uint64_t *seed, const char **kind)
{
    static void (*const edits[])(struct fake * f, uint64_t * seed) = {edit_header, edit_header, edit_table, loop_table,
                                                                      overlap};
    static const char *const names[] = {"header", "header", "table", "loop", "overlap", "cut", "foreign", "huge"};
    size_t what = fake_random(seed) % 24 ? fake_random(seed) % (ARRAY_SIZE(names) - 1) : ARRAY_SIZE(names) - 1;
    const struct fake *from = good[fake_random(seed) % ARRAY_SIZE(good)];

    *kind = names[what];
    if (what == 6)
        return foreign(seed);
    if (what == 5)
        return fake_new(from->data, random_64(seed) % from->size, 1);
    struct fake *f;
    if (what == 7) {
        uint8_t *bytes = calloc(1, BIG);
        assert_non_null(bytes);
        memcpy(bytes, from->data, from->size < BIG / 4 ? from->size : BIG / 4);
        f = fake_new(bytes, BIG, 1);
        free(bytes);
        huge(f, seed);
    } else {
        f = fake_new(from->data, from->size, 1);
        edits[what](f, seed);
    }
    return f;
}

/* ---- in a process of its own ---- */

static bool names_field(const char *msg)
{
    return strstr(msg, " at offset ") || strstr(msg, " at 0x") || strstr(msg, "bytes are no qcow2 image");
}

static int refused(const struct err *err)
{
    if (!err->msg[0] || strchr(err->msg, '\n'))
        return NO_LINE;
    return names_field(err->msg) ? REFUSED : NO_FIELD;
}

static int use(struct loop *loop, struct disk *disk)
{
    static uint8_t buf[65536];
    struct iovec iov = {buf, sizeof(buf)};
    uint64_t step = disk->size / 8 > sizeof(buf) ? align_down(disk->size / 8, DISK_BLOCK_SIZE) : sizeof(buf);
    unsigned write = !disk->read_only;

    for (uint64_t at = 0; at + sizeof(buf) <= disk->size; at += step)
        for (unsigned i = 0; i <= write; i++) {
            struct disk_request req = {
                .op = i ? DISK_WRITE : DISK_READ, .offset = at, .len = sizeof(buf), .iov = &iov, .n_iov = 1};
            int r = disk_call(disk, &req);
            if (r && r != -EIO && r != -ENOSPC && r != -EFBIG)
                return NO_ANSWER;
        }
    return OPENED;
}

static int open_it(struct fake *fake, struct err *err)
{
    struct disk_conf conf = {.path = "bad.qcow2", .format = "qcow2", .no_backing = true};
    struct disk *disk;
    struct loop *loop;

    if (loop_open(&loop, NULL))
        return NO_ANSWER;
    fake_next = fake;
    fake->max_size = BIG + MIB;
    if (disk_open(&disk, &conf, loop, err))
        return refused(err);
    int answer = use(loop, disk);
    disk_close(disk);
    return answer;
}

static uint64_t in_use(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f || fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int answer_of(struct fake *fake, char *line, size_t len)
{
    int ends[2], status;

    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = {""};
        uint64_t memory = in_use() + MEMORY + (fake->capacity > BIG ? 0 : 4 * MIB); /* the file in memory may grow */
        if (LIMITED && setrlimit(RLIMIT_AS, &(struct rlimit){memory, memory}))
            _exit(NO_ANSWER);
        if (LIMITED && setrlimit(RLIMIT_CPU, &(struct rlimit){1, 2}))
            _exit(NO_ANSWER);
        int answer = open_it(fake, &err);
        (void)!write(ends[1], err.msg, strlen(err.msg));
        _exit(answer);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], line, len - 1);
    line[got > 0 ? got : 0] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static unsigned number(const char *name, unsigned usual)
{
    return getenv(name) ? (unsigned)strtoul(getenv(name), NULL, 10) : usual;
}

static void test_thousand(void **state)
{
    unsigned n = number("VIREO_TEST_IMAGES", getenv("VIREO_TEST_SLOW") ? 250 : 1000),
             from = number("VIREO_TEST_SEED", 1), seen[2] = {0}, bad = 0;

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        good[i] = make_good(&shapes[i], i + 1);
    for (unsigned i = from; i < from + n; i++) {
        uint64_t seed = i;
        const char *kind;
        char line[600];
        struct fake *fake = make_bad(&seed, &kind);
        int answer = answer_of(fake, line, sizeof(line));
        if (answer == REFUSED || answer == OPENED) {
            seen[answer]++;
        } else {
            print_message("# seed %u, %s: answer %d: %s\n", i, kind, answer, line);
            bad++;
        }
        fake_free(fake);
    }
    print_message("# %u refused, %u sound enough\n", seen[REFUSED], seen[OPENED]);
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        fake_free(good[i]);
    assert_int_equal(bad, 0);
    assert_true(seen[REFUSED] > n / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thousand),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
