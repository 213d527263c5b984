/*
 * Writes to a disk at random, reads, flushes, and knows what must be there.
 *
 *   writer write RECORD N-BLOCKS N-WRITES DISK[,key=value...]    ends early on SIGTERM
 *   writer verify RECORD DISK[,key=value...]
 *
 * Each block of 4 KiB holds its number and a version. RECORD is a file that lasts when the writer is killed: for each block the version that was submitted
 * last, that has completed, and that an acknowledged flush covers; counters in front (struct record). Reads on the way must find the version that has
 * completed, or one under way; so must all blocks at the end. `verify` accepts any version from the flushed one to the last. Status 1, and a line each, for what is wrong; 3
 * when requests failed and nothing else was wrong; 2 when the disk cannot be opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/disk_spec.h"

#define BLOCK      4096
#define DEPTH      16
#define MOST       16 /* blocks of a request */
#define N_FLUSH    40 /* writes between flushes, on average */
#define MAX_BLOCKS 65536

struct version {
    uint64_t last, completed, flushed;
};

struct record {
    uint64_t n_blocks, n_writes, n_reads, n_flushes, n_errors;
    struct version versions[];
};

struct slot {
    struct disk_request req;
    struct iovec iov;
    bool busy;
    uint32_t first, n;
    uint64_t before[MOST]; /* READ: completed at its start */
    uint64_t version;      /* WRITE */
    uint64_t *covers;      /* FLUSH: completed at its start */
    uint8_t buf[MOST * BLOCK];
};

struct writer {
    struct loop *loop;
    struct disk *disk;
    struct record *record;
    struct slot slots[DEPTH];
    uint64_t left, version, seed;
    unsigned n_busy, wrong;
    uint16_t writing[MAX_BLOCKS]; /* writes under way */
};

static volatile sig_atomic_t stop;

static void on_term(int number)
{
    stop = 1;
}

static uint32_t rnd(struct writer *w)
{
    w->seed = w->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(w->seed >> 33);
}

static uint64_t word(uint64_t block, uint64_t version, unsigned i)
{
    return i == 0 ? version : (block * UINT64_C(0x9e3779b97f4a7c15)) ^ (version * UINT64_C(0xc2b2ae3d27d4eb4f)) ^ i;
}

static void fill(uint8_t *buf, uint64_t block, uint64_t version)
{
    for (unsigned i = 0; i < BLOCK / 8; i++) {
        uint64_t v = version ? word(block, version, i) : 0;
        memcpy(buf + i * 8, &v, 8);
    }
}

/* The version that the block holds; UINT64_MAX: none. */
static uint64_t look(const uint8_t *buf, uint64_t block)
{
    uint8_t right[BLOCK];
    uint64_t version;

    memcpy(&version, buf, 8);
    fill(right, block, version);
    return memcmp(buf, right, BLOCK) == 0 ? version : UINT64_MAX;
}

static void complain(struct writer *w, const char *when, uint64_t block, uint64_t version, uint64_t least,
                     uint64_t most)
{
    if (w->wrong++ < 20)
        printf("%s: block %" PRIu64 " has version %" PRId64 ", should have %" PRIu64 " to %" PRIu64 "\n", when, block,
               (int64_t)version, least, most);
}

static void next(struct writer *w);

static void write_done(struct writer *w, struct slot *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        w->writing[s->first + i]--;
        if (s->req.result == 0)
            w->record->versions[s->first + i].completed = s->version;
    }
    w->record->n_writes++;
}

static void read_done(struct writer *w, struct slot *s)
{
    for (uint32_t i = 0; i < s->n && s->req.result == 0; i++) {
        uint64_t block = s->first + i, version = look(s->buf + (size_t)i * BLOCK, block);
        const struct version *v = &w->record->versions[block];
        if (version == UINT64_MAX ? !w->writing[block] && v->last == s->before[i]
                                  : version < s->before[i] || version > v->last)
            complain(w, "read", block, version, s->before[i], v->last);
    }
    w->record->n_reads++;
}

static void flush_done(struct writer *w, struct slot *s)
{
    if (s->req.result == 0) {
        for (uint64_t i = 0; i < w->record->n_blocks; i++)
            if (s->covers[i] > w->record->versions[i].flushed)
                w->record->versions[i].flushed = s->covers[i];
        w->record->n_flushes++;
    }
    free(s->covers);
    s->covers = NULL;
}

static void on_done(struct disk_request *req, int result)
{
    struct slot *s = CONTAINER_OF(req, struct slot, req);
    struct writer *w = req->opaque;

    if (result < 0) {
        if (w->record->n_errors++ < 5)
            printf("a request failed: %s\n", strerror(-result));
    }
    if (req->op == DISK_WRITE)
        write_done(w, s);
    else if (req->op == DISK_READ)
        read_done(w, s);
    else
        flush_done(w, s);
    s->busy = false;
    w->n_busy--;
    next(w);
}

static void submit(struct writer *w, struct slot *s, enum disk_op op)
{
    s->iov = (struct iovec){.iov_base = s->buf, .iov_len = (size_t)s->n * BLOCK};
    s->req = (struct disk_request){.op = op,
                                   .offset = (uint64_t)s->first * BLOCK,
                                   .len = (uint64_t)s->n * BLOCK,
                                   .iov = &s->iov,
                                   .n_iov = 1,
                                   .done = on_done,
                                   .opaque = w};
    if (op == DISK_FLUSH)
        s->req.offset = s->req.len = s->req.n_iov = 0;
    s->busy = true;
    w->n_busy++;
    disk_submit(w->disk, &s->req);
}

/* Writes that overlap one another would leave open what must be there. */
static bool free_to_write(const struct writer *w, const struct slot *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (w->writing[s->first + i])
            return false;
    return true;
}

static void start(struct writer *w, struct slot *s)
{
    struct record *r = w->record;
    uint32_t what = rnd(w) % (N_FLUSH * 2);

    s->n = 1 + rnd(w) % MOST;
    s->first = rnd(w) % (uint32_t)(r->n_blocks - s->n + 1);
    if (what == 0) {
        s->covers = malloc(r->n_blocks * sizeof(*s->covers));
        for (uint64_t i = 0; i < r->n_blocks; i++)
            s->covers[i] = r->versions[i].completed;
        submit(w, s, DISK_FLUSH);
    } else if (what < N_FLUSH && free_to_write(w, s)) {
        s->version = ++w->version;
        for (uint32_t i = 0; i < s->n; i++) {
            fill(s->buf + (size_t)i * BLOCK, s->first + i, s->version);
            r->versions[s->first + i].last = s->version;
            w->writing[s->first + i]++;
        }
        w->left--;
        submit(w, s, DISK_WRITE);
    } else {
        for (uint32_t i = 0; i < s->n; i++)
            s->before[i] = r->versions[s->first + i].completed;
        submit(w, s, DISK_READ);
    }
}

static void next(struct writer *w)
{
    for (unsigned i = 0; i < DEPTH && w->left && !stop; i++)
        if (!w->slots[i].busy)
            start(w, &w->slots[i]);
    if (!w->n_busy)
        loop_stop(w->loop);
}

static int verify(struct writer *w, const char *when, bool exact)
{
    struct slot *s = &w->slots[0];

    for (uint64_t block = 0; block < w->record->n_blocks; block++) {
        const struct version *v = &w->record->versions[block];
        struct iovec iov = {.iov_base = s->buf, .iov_len = BLOCK};
        struct disk_request req = {.op = DISK_READ, .offset = block * BLOCK, .len = BLOCK, .iov = &iov, .n_iov = 1};
        int r = disk_call(w->disk, &req);
        if (r < 0) {
            printf("%s: block %" PRIu64 ": %s\n", when, block, strerror(-r));
            return r;
        }
        uint64_t version = look(s->buf, block), least = exact ? v->completed : v->flushed;
        if (version < least || version > v->last)
            complain(w, when, block, version, least, v->last);
    }
    return 0;
}

static struct record *map_record(const char *path, uint64_t n_blocks)
{
    size_t size = sizeof(struct record) + MAX_BLOCKS * sizeof(struct version);
    int fd = open(path, O_RDWR | (n_blocks ? O_CREAT | O_TRUNC : 0), 0666);

    if (fd < 0 || (n_blocks && ftruncate(fd, (off_t)size) < 0))
        return NULL;
    struct record *record = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (record == MAP_FAILED)
        return NULL;
    if (n_blocks)
        record->n_blocks = n_blocks;
    return record;
}

static int run(struct writer *w, bool writes)
{
    struct disk_request flush = {.op = DISK_FLUSH};

    if (writes) {
        next(w);
        loop_run(w->loop);
    }
    if (writes && !w->record->n_errors && disk_call(w->disk, &flush) < 0)
        w->record->n_errors++;
    if (verify(w, writes ? "at the end" : "verify", writes && !w->record->n_errors) < 0)
        return 1;
    printf("%" PRIu64 " writes, %" PRIu64 " reads, %" PRIu64 " flushes, %" PRIu64 " errors, %u wrong\n",
           w->record->n_writes, w->record->n_reads, w->record->n_flushes, w->record->n_errors, w->wrong);
    return w->wrong ? 1 : w->record->n_errors ? 3 : 0;
}

int main(int argc, char **argv)
{
    bool writes = argc == 6 && strcmp(argv[1], "write") == 0;
    struct writer *w = calloc(1, sizeof(*w));
    struct disk_spec spec;
    struct disk_conf conf;
    struct err err;

    signal(SIGTERM, on_term);
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_set_level(LOG_LEVEL_INFO);
    if (!writes && (argc != 4 || strcmp(argv[1], "verify") != 0))
        return 2;
    w->record = map_record(argv[2], writes ? strtoull(argv[3], NULL, 10) : 0);
    w->left = writes ? strtoull(argv[4], NULL, 10) : 0;
    w->seed = (uint64_t)getpid();
    if (!w->record || w->record->n_blocks > MAX_BLOCKS || w->record->n_blocks < MOST)
        return 2;
    int r = loop_open(&w->loop, &err);
    if (r == 0)
        r = disk_spec_parse(&spec, argv[argc - 1], &err);
    if (r == 0) {
        disk_spec_conf(&spec, &conf);
        r = disk_open(&w->disk, &conf, w->loop, &err);
    }
    if (r < 0) {
        printf("%s\n", err.msg);
    }
    int status = r < 0 ? 2 : run(w, writes);
    disk_close(w->disk);
    loop_close(w->loop);
    free(w);
    return status;
}
