/* The file of a saved state: what was written is read, and whatever else is there is found. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../unit.h"
#include "vm/state_file.h"

#define FLIPS      10000
#define BLOCKS     5
#define BLOCK_SIZE 3000
#define FILE_MOST  (128 * KIB)

static const size_t lengths[BLOCKS] = {0, 1, 4096, BLOCK_SIZE, 70000};

struct copy {
    uint8_t *data;
    size_t len;
};

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int memory_file(const void *data, size_t len)
{
    int fd = memfd_create("state", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void fill(uint8_t *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static struct copy make(uint64_t id)
{
    static uint8_t data[70000];
    struct state_file_writer w;
    struct copy c;
    int fd = memfd_create("state", MFD_CLOEXEC);

    assert_int_equal(state_file_begin(&w, fd, id), 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        fill(data, lengths[i], i);
        assert_int_equal(state_file_put(&w, i + 1, i * 1000, data, lengths[i]), 0);
    }
    assert_int_equal(state_file_end(&w), 0);
    c.len = w.bytes;
    assert_true(c.len < FILE_MOST);
    c.data = malloc(FILE_MOST);
    assert_non_null(c.data);
    assert_int_equal(pread(fd, c.data, c.len, 0), c.len);
    close(fd);
    return c;
}

/* 0 where all of it is read without a complaint; then as many blocks as there are. */
static int read_through(const void *data, size_t len, struct err *err)
{
    struct state_file_reader r;
    struct state_file_block block;
    int fd = memory_file(data, len), result = state_file_open(&r, fd, "FILE", err);

    if (result == 0)
        while ((result = state_file_next(&r, &block, err)) == 1)
            ;
    state_file_close(&r);
    close(fd);
    return result;
}

static void assert_damaged(const void *data, size_t len)
{
    struct err err = {""};

    assert_int_equal(read_through(data, len, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "'FILE'"));
    assert_null(strchr(err.msg, '\n'));
}

static void test_round_trip(void **state)
{
    static uint8_t expected[70000];
    struct copy c = make(7);
    struct state_file_reader r;
    struct state_file_block block;
    struct err err;
    int fd = memory_file(c.data, c.len);

    assert_int_equal(state_file_open(&r, fd, "FILE", &err), 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(state_file_next(&r, &block, &err), 1);
        assert_int_equal(block.kind, i + 1);
        assert_int_equal(block.number, i * 1000);
        assert_int_equal(block.len, lengths[i]);
        fill(expected, block.len, i);
        assert_memory_equal(block.data, expected, block.len);
    }
    assert_int_equal(state_file_next(&r, &block, &err), 0);
    state_file_close(&r);
    close(fd);
    free(c.data);
}

static void test_flips(void **state)
{
    struct copy c = make(7);

    for (unsigned i = 0; i < FLIPS; i++) {
        /* Half of them in headers and in short blocks, which are few of the bytes. */
        size_t bit = next_random() % ((i & 1 ? c.len : 200) * 8);
        c.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_damaged(c.data, c.len);
        c.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(read_through(c.data, c.len, NULL), 0);
    free(c.data);
}

static void test_lengths(void **state)
{
    struct copy c = make(7);

    for (size_t len = 0; len < c.len; len += len < 300 || len > c.len - 100 ? 1 : 997)
        assert_damaged(c.data, len);
    c.data[c.len] = 0;
    assert_damaged(c.data, c.len + 1);
    free(c.data);
}

static uint8_t moved[FILE_MOST];

/* `len` bytes of the file from `from` on, to `at` of another. */
static void move(size_t at, const struct copy *c, size_t from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        moved[at + i] = c->data[from + i];
}

/* Blocks whose own hashes are right, but which are not where they were. */
static void test_moved(void **state)
{
    struct copy a = make(7), b = make(8);
    const size_t head = STATE_FILE_HEADER, block = STATE_FILE_HEADER;

    move(0, &a, 0, a.len); /* the first two blocks change places */
    move(head, &a, head + block, block + 1);
    move(head + block + 1, &a, head, block);
    assert_damaged(moved, a.len);

    move(0, &a, 0, head); /* the first is left out */
    move(head, &a, head + block, a.len - head - block);
    assert_damaged(moved, a.len - block);

    move(0, &a, 0, a.len); /* all are another file's */
    move(head, &b, head, a.len - head);
    assert_damaged(moved, a.len);
    free(a.data);
    free(b.data);
}

static void seal(uint8_t *header, uint64_t seed, bool seeded)
{
    store_le64(header + 24, seeded ? XXH3_64bits_withSeed(header, 24, seed) : XXH3_64bits(header, 24));
}

/* With the right hashes, on purpose. */
static void test_forged(void **state)
{
    struct copy c = make(7);
    uint8_t *block = c.data + STATE_FILE_HEADER;
    struct err err;

    store_le32(c.data + 8, STATE_FILE_VERSION + 1);
    seal(c.data, 0, false);
    assert_int_equal(read_through(c.data, c.len, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "version"));
    store_le32(c.data + 8, STATE_FILE_VERSION);
    seal(c.data, 0, false);

    store_le32(block + 4, STATE_FILE_BLOCK_MAX + 1);
    seal(block, load_le64(c.data + 24), true);
    assert_damaged(c.data, c.len);
    store_le32(block + 4, STATE_FILE_BLOCK_MAX); /* more than there is */
    seal(block, load_le64(c.data + 24), true);
    assert_damaged(c.data, c.len);
    store_le32(block, STATE_FILE_END);
    store_le32(block + 4, 0);
    store_le64(block + 8, 1); /* blocks before it: none */
    seal(block, load_le64(c.data + 24), true);
    assert_damaged(c.data, 2 * STATE_FILE_HEADER);
    store_le64(block + 8, 0);
    seal(block, load_le64(c.data + 24), true);
    assert_int_equal(read_through(c.data, 2 * STATE_FILE_HEADER, &err), 0);
    free(c.data);
}

static void test_no_room(void **state)
{
    struct state_file_writer w;
    static uint8_t data[STATE_FILE_BLOCK_MAX + 1];
    int fd = memory_file("", 0);

    assert_int_equal(state_file_begin(&w, -1, 0), -EBADF);
    assert_int_equal(state_file_begin(&w, fd, 0), 0);
    assert_int_equal(state_file_put(&w, 1, 0, data, sizeof(data)), -EFBIG);
    assert_int_equal(state_file_put(&w, STATE_FILE_END, 0, data, 1), -EINVAL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_flips),  cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_moved),      cmocka_unit_test(test_forged), cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests_name("state_file", tests, NULL, NULL);
}
