#include <unistd.h>

#include "../unit.h"
#include "device/virtio_balloon.h"
#include "virtio/driver.h"

#define PAGE             4096
#define F_STATS_VQ       (UINT64_C(1) << 1)
#define F_PAGE_POISON    (UINT64_C(1) << 4)
#define F_PAGE_REPORTING (UINT64_C(1) << 5)

enum { INFLATE, DEFLATE, STATS, LINUX_REPORTING, REPORTING };
enum { NUM_PAGES = 0, ACTUAL = 4, POISON = 12 };

struct fixture {
    struct vboard b;
    struct driver d;
};

static void setup(struct fixture *f, const struct virtio_balloon_conf *conf, uint64_t features)
{
    vboard_open(&f->b);
    driver_open(&f->d, &f->b, &virtio_balloon_type, conf);
    driver_init(&f->d, features);
}

static void teardown(struct fixture *f)
{
    driver_close(&f->d);
    vboard_close(&f->b);
}

/* Both layouts of rings. */
static void each_layout(void (*test)(struct fixture *))
{
    static const uint64_t layouts[] = {DRIVER_ALL, ~VIRTIO_F_RING_PACKED};

    for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
        struct fixture f;
        setup(&f, &(struct virtio_balloon_conf){0}, layouts[i]);
        test(&f);
        teardown(&f);
    }
}

static void fill(struct fixture *f, uint64_t gpa, uint64_t len)
{
    memset(ram_host(&f->b.ram, gpa, len), 0xaa, len);
}

/* Whether a page is backed, without touching it. */
static bool backed(struct fixture *f, uint64_t gpa)
{
    off_t offset = ram_host(&f->b.ram, gpa, PAGE) - f->b.ram.base;

    return lseek(f->b.ram.fd, offset, SEEK_DATA) == offset;
}

static uint32_t pfn(uint64_t gpa)
{
    return (uint32_t)(gpa / PAGE);
}

static struct virtio_balloon_info info_of(struct fixture *f)
{
    struct virtio_balloon_info info;

    virtio_balloon_get(f->d.v, &info);
    return info;
}

/* Exactly the pages named go, in whatever order they are named; deflating needs nothing. */
static void inflates(struct fixture *f)
{
    uint64_t a = vboard_alloc(&f->b, 8 * PAGE, PAGE), b = vboard_alloc_high(&f->b, 8 * PAGE, PAGE);
    const uint32_t list[] = {pfn(a + 5 * PAGE), pfn(a + 4 * PAGE), pfn(b), pfn(a + 3 * PAGE),
                             pfn(a + PAGE),     pfn(b + 7 * PAGE), pfn(b), pfn(b + 6 * PAGE)};

    fill(f, a, 8 * PAGE);
    fill(f, b, 8 * PAGE);
    assert_int_equal(driver_request(&f->d, INFLATE, list, sizeof(list), NULL, 0), 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(backed(f, a + i * PAGE), !(i == 1 || i == 3 || i == 4 || i == 5));
        assert_int_equal(backed(f, b + i * PAGE), !(i == 0 || i == 6 || i == 7));
    }
    assert_int_equal(info_of(f).inflated_bytes, 7 * PAGE);
    assert_int_equal(*vboard_at(&f->b, a + 3 * PAGE), 0);
    assert_int_equal(*vboard_at(&f->b, a + 2 * PAGE), 0xaa);
    memset(vboard_at(&f->b, a + 4 * PAGE), 0x55, PAGE);
    assert_int_equal(driver_request(&f->d, DEFLATE, list, sizeof(list), NULL, 0), 0);
    assert_int_equal(*vboard_at(&f->b, a + 4 * PAGE), 0x55);
    assert_int_equal(info_of(f).deflated_bytes, 8 * PAGE);
}

static void test_inflate(void **state)
{
    each_layout(inflates);
}

/* Numbers that are no RAM, twice, at the edges, in lists of odd lengths: the others still go, and nothing else. */
static void hostile(struct fixture *f)
{
    uint64_t a = vboard_alloc(&f->b, 3 * PAGE, PAGE);
    const uint32_t list[] = {pfn(VBOARD_RAM_LOW),
                             pfn(VBOARD_RAM_LOW + PAGE),
                             pfn(a),
                             pfn(3 * GIB),
                             pfn(4 * GIB - PAGE),
                             UINT32_MAX,
                             UINT32_MAX - 1,
                             pfn(4 * GIB + VBOARD_RAM_HIGH),
                             pfn(a + 2 * PAGE),
                             pfn(a)};

    fill(f, a, 3 * PAGE);
    assert_int_equal(driver_request(&f->d, INFLATE, list, sizeof(list), NULL, 0), 0);
    assert_false(backed(f, a));
    assert_true(backed(f, a + PAGE));
    assert_false(backed(f, a + 2 * PAGE));
    assert_int_equal(info_of(f).refused_pages, 7);
    fill(f, a, 3 * PAGE);
    assert_int_equal(driver_request(&f->d, INFLATE, list + 2, 7, NULL, 0),
                     0); /* one number, and three bytes of the next */
    assert_false(backed(f, a));
    assert_true(backed(f, a + 2 * PAGE));
    assert_int_equal(driver_request(&f->d, INFLATE, list, 3, NULL, 0), 0);
    uint8_t in[16];
    assert_int_equal(driver_request(&f->d, INFLATE, NULL, 0, in, sizeof(in)), 0);
    assert_int_equal(info_of(f).refused_pages, 7);
    assert_false(driver_status(&f->d) & 0x40);
}

static void test_hostile(void **state)
{
    each_layout(hostile);
}

/* The whole of both parts of RAM but what the rings are in, in one list that takes several slices. */
static void test_long_list(void **state)
{
    struct fixture f;
    uint32_t list[3000], n = 0;

    setup(&f, &(struct virtio_balloon_conf){0}, DRIVER_ALL);
    uint64_t a = vboard_alloc_high(&f.b, 1500 * PAGE, PAGE);
    fill(&f, a, 1500 * PAGE);
    for (unsigned i = 0; i < 1500; i++) {
        list[n++] = pfn(a) + 1499 - i;
        list[n++] = pfn(a) + i;
    }
    driver_request(&f.d, INFLATE, list, sizeof(list), NULL, 0);
    for (unsigned i = 0; i < 1500; i++)
        assert_false(backed(&f, a + i * PAGE));
    teardown(&f);
}

/* A list too long to be meant: the device wants a reset, and works after one. */
static void test_endless_list(void **state)
{
    struct fixture f;
    struct driver_buf bufs[2];

    setup(&f, &(struct virtio_balloon_conf){0}, ~VIRTIO_F_RING_PACKED);
    bufs[0] = bufs[1] = (struct driver_buf){.gpa = 4 * GIB, .len = 4 * MIB};
    assert_true(driver_add(&f.d.queues[INFLATE], bufs, 2) >= 0);
    driver_kick(&f.d.queues[INFLATE]);
    assert_true(driver_wait_status(&f.d, 0x40));
    driver_init(&f.d, DRIVER_ALL);
    uint64_t a = vboard_alloc(&f.b, PAGE, PAGE);
    uint32_t number = pfn(a);
    fill(&f, a, PAGE);
    driver_request(&f.d, INFLATE, &number, sizeof(number), NULL, 0);
    assert_false(backed(&f, a));
    teardown(&f);
}

/* Sends two ranges as a report, on that queue. */
static void report(struct fixture *f, unsigned queue, uint64_t a, uint32_t a_len, uint64_t b, uint32_t b_len)
{
    struct driver_buf bufs[] = {{.gpa = a, .len = a_len, .write = true}, {.gpa = b, .len = b_len, .write = true}};
    unsigned id;
    uint32_t len;

    assert_true(driver_add(&f->d.queues[queue], bufs, 2) >= 0);
    driver_kick(&f->d.queues[queue]);
    assert_true(driver_wait(&f->d.queues[queue], &id, &len));
    assert_int_equal(len, 0);
}

/* In the specification's queue and in Linux's; whole pages only. */
static void reports(struct fixture *f)
{
    static const unsigned queues[] = {REPORTING, LINUX_REPORTING};
    uint64_t a = vboard_alloc(&f->b, 16 * PAGE, PAGE), b = vboard_alloc_high(&f->b, 16 * PAGE, PAGE);

    for (size_t i = 0; i < ARRAY_SIZE(queues); i++) {
        uint64_t before = info_of(f).reported_bytes;
        fill(f, a, 16 * PAGE);
        fill(f, b, 16 * PAGE);
        report(f, queues[i], a + PAGE, 14 * PAGE, b + 100, 3 * PAGE);
        for (unsigned n = 0; n < 16; n++) {
            assert_int_equal(backed(f, a + n * PAGE), n == 0 || n == 15);
            assert_int_equal(backed(f, b + n * PAGE), n != 1 && n != 2);
        }
        assert_true(info_of(f).reported_bytes - before >= 16 * PAGE);
        assert_int_equal(*vboard_at(&f->b, a + PAGE), 0);
        assert_int_equal(*vboard_at(&f->b, b + 99), 0xaa);
    }
}

static void test_report(void **state)
{
    each_layout(reports);
}

/* Free pages hold the guest's poison: not ours to change, unless it is zero. Inflated ones are. */
static void test_poison(void **state)
{
    static const struct {
        uint64_t features;
        uint32_t poison;
        bool stays;
    } cases[] = {{DRIVER_ALL, 0xaaaaaaaa, true}, {DRIVER_ALL, 0, false}, {~F_PAGE_POISON, 0xaaaaaaaa, false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture f;
        setup(&f, &(struct virtio_balloon_conf){0}, cases[i].features);
        uint64_t a = vboard_alloc(&f.b, 4 * PAGE, PAGE);
        uint32_t number = pfn(a + 3 * PAGE);
        driver_write(&f.d, f.d.config + POISON, 4, cases[i].poison);
        fill(&f, a, 4 * PAGE);
        report(&f, REPORTING, a, PAGE, a + PAGE, PAGE);
        assert_int_equal(backed(&f, a), cases[i].stays);
        assert_int_equal(backed(&f, a + PAGE), cases[i].stays);
        driver_request(&f.d, INFLATE, &number, sizeof(number), NULL, 0);
        assert_false(backed(&f, a + 3 * PAGE));
        teardown(&f);
    }
}

static void test_target(void **state)
{
    struct fixture f;

    setup(&f, &(struct virtio_balloon_conf){.target = 5 * PAGE + 1}, DRIVER_ALL);
    assert_int_equal(driver_read(&f.d, f.d.config + NUM_PAGES, 4), 5);
    virtio_balloon_set_target(f.d.v, 3 * MIB);
    assert_int_equal(driver_read(&f.d, f.d.config + NUM_PAGES, 4), 768);
    virtio_balloon_set_target(f.d.v, UINT64_MAX);
    assert_int_equal(driver_read(&f.d, f.d.config + NUM_PAGES, 4), (VBOARD_RAM_LOW + VBOARD_RAM_HIGH) / PAGE);
    driver_write(&f.d, f.d.config + NUM_PAGES, 4, 1); /* not the guest's to write */
    assert_int_equal(info_of(&f).target, VBOARD_RAM_LOW + VBOARD_RAM_HIGH);
    driver_write(&f.d, f.d.config + ACTUAL, 4, 7);
    assert_int_equal(info_of(&f).actual, 7 * PAGE);
    driver_reset(&f.d);
    assert_int_equal(info_of(&f).actual, 0);
    assert_int_equal(info_of(&f).target, VBOARD_RAM_LOW + VBOARD_RAM_HIGH);
    teardown(&f);
}

struct __attribute__((packed)) stat {
    uint16_t tag;
    uint64_t value;
};

/* A buffer of statistics; the driver offers it and gets it back when more are wanted. */
static void offer_stats(struct fixture *f, const struct stat *stats, unsigned n)
{
    uint64_t gpa = vboard_alloc(&f->b, n * sizeof(*stats), 8);
    struct driver_buf buf = {.gpa = gpa, .len = n * sizeof(*stats)};

    memcpy(vboard_at(&f->b, gpa), stats, n * sizeof(*stats));
    assert_true(driver_add(&f->d.queues[STATS], &buf, 1) >= 0);
    driver_kick(&f->d.queues[STATS]);
}

static struct virtio_balloon_info await(struct fixture *f, unsigned tag, uint64_t value)
{
    struct virtio_balloon_info info = info_of(f);

    for (unsigned i = 0; i < 20000 && info.stats[tag] != value; i++) {
        usleep(1000);
        info = info_of(f);
    }
    assert_int_equal(info.stats[tag], value);
    return info;
}

/* Asked for by the timer: each buffer that comes back is answered with another. Unknown tags do not matter. */
static void test_stats(void **state)
{
    struct fixture f;
    const struct stat first[] = {{VIRTIO_BALLOON_FREE, 1}, {77, 9}, {0xffff, 9}, {VIRTIO_BALLOON_TOTAL, 2}};
    unsigned id;
    uint32_t len;

    setup(&f, &(struct virtio_balloon_conf){.stats_secs = 1}, DRIVER_ALL);
    assert_int_equal(info_of(&f).stats_age_ns, -1);
    offer_stats(&f, first, ARRAY_SIZE(first));
    struct virtio_balloon_info info = await(&f, VIRTIO_BALLOON_TOTAL, 2);
    assert_int_equal(info.stats_there, 1 << VIRTIO_BALLOON_FREE | 1 << VIRTIO_BALLOON_TOTAL);
    assert_true(info.stats_age_ns >= 0);
    for (uint64_t i = 10; i < 12; i++) {
        assert_true(driver_wait(&f.d.queues[STATS], &id, &len));
        offer_stats(&f, &(struct stat){VIRTIO_BALLOON_FREE, i}, 1);
        info = await(&f, VIRTIO_BALLOON_FREE, i);
        assert_int_equal(info.stats_there, 1 << VIRTIO_BALLOON_FREE);
    }
    driver_reset(&f.d);
    assert_int_equal(info_of(&f).stats_age_ns, -1);
    teardown(&f);
}

/* Asked for by looking, where they are old or there are none; a guest that offers two buffers gets the first back. */
static void test_stats_on_request(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;

    setup(&f, &(struct virtio_balloon_conf){0}, ~VIRTIO_F_RING_PACKED);
    offer_stats(&f, &(struct stat){VIRTIO_BALLOON_CACHES, 5}, 1);
    await(&f, VIRTIO_BALLOON_CACHES, 5);
    offer_stats(&f, &(struct stat){VIRTIO_BALLOON_CACHES, 6}, 1);
    assert_true(driver_wait(&f.d.queues[STATS], &id, &len));
    await(&f, VIRTIO_BALLOON_CACHES, 6);
    while (info_of(&f).stats_age_ns < NS_PER_SEC) /* the look that finds them old asks */
        usleep(10000);
    info_of(&f);
    assert_true(driver_wait(&f.d.queues[STATS], &id, &len));
    teardown(&f);
}

/* A pause takes the buffer back to the ring, and finds it there afterwards. */
static void test_pause(void **state)
{
    struct fixture f;

    setup(&f, &(struct virtio_balloon_conf){0}, DRIVER_ALL);
    offer_stats(&f, &(struct stat){VIRTIO_BALLOON_FREE, 5}, 1);
    await(&f, VIRTIO_BALLOON_FREE, 5);
    virtio_pci_pause(f.d.dev);
    virtio_balloon_set_target(f.d.v, MIB);
    virtio_pci_resume(f.d.dev);
    uint64_t a = vboard_alloc(&f.b, PAGE, PAGE);
    uint32_t number = pfn(a);
    fill(&f, a, PAGE);
    driver_request(&f.d, INFLATE, &number, sizeof(number), NULL, 0);
    assert_false(backed(&f, a));
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inflate),      cmocka_unit_test(test_hostile), cmocka_unit_test(test_long_list),
        cmocka_unit_test(test_endless_list), cmocka_unit_test(test_report),  cmocka_unit_test(test_poison),
        cmocka_unit_test(test_target),       cmocka_unit_test(test_stats),   cmocka_unit_test(test_stats_on_request),
        cmocka_unit_test(test_pause),
    };
    return cmocka_run_group_tests_name("virtio_balloon", tests, NULL, NULL);
}
