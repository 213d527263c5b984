#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "../unit.h"
#include "virtio/vhost_ring.h"

struct fixture {
    struct vhost_ring ring;
    uint8_t *memory;
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
};

static void setup(struct fixture *f)
{
    f->memory = aligned_alloc(4096, VHOST_RING_BYTES);
    memset(f->memory, 0, VHOST_RING_BYTES);
    assert_int_equal(vhost_ring_open(&f->ring, f->memory), 0);
    f->desc = f->ring.desc;
    f->avail = f->ring.avail;
    f->used = f->ring.used;
}

static void teardown(struct fixture *f)
{
    vhost_ring_close(&f->ring);
    free(f->memory);
}

static void finish(struct fixture *f, uint32_t id, uint32_t len)
{
    f->used->ring[f->used->idx % VHOST_RING_SIZE] = (struct vring_used_elem){.id = id, .len = len};
    f->used->idx++;
}

static const struct vhost_ring_seg segs[] = {{0x1000, 40}, {0x2000, 100}, {0x3000, 16}, {0x4000, 4096}};

/* A chain as the back end sees it, and back. */
static void test_chain(void **state)
{
    struct fixture f;
    uint32_t written;
    void *opaque;

    setup(&f);
    assert_int_equal(vhost_ring_take(&f.ring, &opaque, &written), 0);
    assert_true(vhost_ring_add(&f.ring, segs, 2, 2, &f));
    assert_int_equal(f.avail->idx, 1);
    uint16_t i = f.avail->ring[0];
    for (unsigned n = 0; n < 4; n++) {
        assert_int_equal(f.desc[i].addr, segs[n].addr);
        assert_int_equal(f.desc[i].len, segs[n].len);
        assert_int_equal(f.desc[i].flags, (n >= 2 ? VRING_DESC_F_WRITE : 0) | (n < 3 ? VRING_DESC_F_NEXT : 0));
        i = f.desc[i].next;
    }
    finish(&f, f.avail->ring[0], 4112);
    assert_int_equal(vhost_ring_take(&f.ring, &opaque, &written), 1);
    assert_ptr_equal(opaque, &f);
    assert_int_equal(written, 4112);
    assert_int_equal(f.ring.n_free, VHOST_RING_SIZE);
    teardown(&f);
}

/* It fills up, says so, empties in another order, and is whole again after many turns of its indices. */
static void test_room(void **state)
{
    struct fixture f;
    uint32_t written;
    void *opaque;
    int names[VHOST_RING_SIZE];

    setup(&f);
    assert_false(vhost_ring_add(&f.ring, segs, 0, 0, &f));
    for (unsigned turn = 0; turn < 300; turn++) {
        uint16_t from = f.ring.added;
        for (unsigned i = 0; i < VHOST_RING_SIZE / 4; i++)
            assert_true(vhost_ring_add(&f.ring, segs, 2, 2, &names[i]));
        assert_false(vhost_ring_add(&f.ring, segs, 1, 0, &f));
        for (unsigned i = 0; i < VHOST_RING_SIZE / 4; i++) {
            unsigned which = (i * 7 + turn) % (VHOST_RING_SIZE / 4);
            finish(&f, f.avail->ring[(uint16_t)(from + which) % VHOST_RING_SIZE], 16);
            assert_int_equal(vhost_ring_take(&f.ring, &opaque, &written), 1);
            assert_ptr_equal(opaque, &names[which]);
        }
        assert_int_equal(f.ring.n_free, VHOST_RING_SIZE);
    }
    teardown(&f);
}

/* What a back end may say that is not so. */
static void test_lies(void **state)
{
    static const struct {
        uint32_t id, len;
        uint16_t idx;
    } lies[] = {{1, 0, 1},    {VHOST_RING_SIZE, 0, 1},      {UINT32_MAX, 0, 1},
                {0, 4113, 1}, {0, 16, VHOST_RING_SIZE + 1}, {0, 16, UINT16_MAX}};

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        struct fixture f;
        uint32_t written;
        void *opaque;
        setup(&f);
        assert_true(vhost_ring_add(&f.ring, segs, 2, 2, &f));
        /* its own copy of the chain does not matter */
        memset(f.desc, 0xff, 4 * sizeof(*f.desc));
        finish(&f, lies[i].id, lies[i].len);
        f.used->idx = lies[i].idx;
        assert_int_equal(vhost_ring_take(&f.ring, &opaque, &written), -EPROTO);
        assert_ptr_equal(vhost_ring_drop(&f.ring), &f);
        assert_null(vhost_ring_drop(&f.ring));
        assert_int_equal(f.ring.n_free, VHOST_RING_SIZE);
        teardown(&f);
    }
}

/* The same chain twice. */
static void test_twice(void **state)
{
    struct fixture f;
    uint32_t written;
    void *opaque;

    setup(&f);
    assert_true(vhost_ring_add(&f.ring, segs, 1, 1, &f));
    finish(&f, 0, 16);
    finish(&f, 0, 16);
    assert_int_equal(vhost_ring_take(&f.ring, &opaque, &written), 1);
    assert_int_equal(vhost_ring_take(&f.ring, &opaque, &written), -EPROTO);
    teardown(&f);
}

static void test_kick(void **state)
{
    struct fixture f;

    setup(&f);
    assert_true(vhost_ring_kick(&f.ring));
    f.used->flags = VRING_USED_F_NO_NOTIFY;
    assert_false(vhost_ring_kick(&f.ring));
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain), cmocka_unit_test(test_room), cmocka_unit_test(test_lies),
        cmocka_unit_test(test_twice), cmocka_unit_test(test_kick),
    };
    return cmocka_run_group_tests_name("vhost_ring", tests, NULL, NULL);
}
