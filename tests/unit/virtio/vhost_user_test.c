#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit.h"
#include "virtio/back_end.h"
#include "virtio/vhost_ring.h"
#include "virtio/vhost_user.h"

#define VERSION_1 (UINT64_C(1) << 32)
#define PROTOCOL  (UINT64_C(1) << 30)
#define ACK       (UINT64_C(1) << 3)
#define BASE      (UINT64_C(1) << 45)

/* Answers each byte with its complement. */
static int64_t complement(struct back_end *b, unsigned ring, struct iovec *out, unsigned n_out, struct iovec *in,
                          unsigned n_in)
{
    for (size_t i = 0; i < out[0].iov_len; i++)
        ((uint8_t *)in[0].iov_base)[i] = (uint8_t) ~((uint8_t *)out[0].iov_base)[i];
    return (int64_t)out[0].iov_len;
}

struct fixture {
    struct back_end b;
    struct vhost_user vu;
    int fd, memory;
    uint8_t *map;
    struct err err;
};

static int start(struct fixture *f, uint64_t features, uint64_t protocol)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    f->b.features = features;
    f->b.protocol = protocol;
    f->b.serve = complement;
    f->fd = pair[0];
    back_end_start(&f->b, NULL, pair[1]);
    f->memory = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->memory, 1 << 20), 0);
    f->map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory, 0);
    int r = vhost_user_open(&f->vu, f->fd, VERSION_1, &f->err);
    if (r == 0) {
        const struct vhost_user_region region = {.addr = BASE, .len = 1 << 20, .fd = f->memory};
        r = vhost_user_set_memory(&f->vu, &region, 1, &f->err);
    }
    return r;
}

static void stop(struct fixture *f)
{
    back_end_stop(&f->b);
    close(f->fd);
    munmap(f->map, 1 << 20);
    close(f->memory);
}

/* With and without the features that make answers of all messages: a request goes through. */
static void test_serves(void **state)
{
    static const struct {
        uint64_t features, protocol, agreed;
        bool enabled;
    } backs[] = {{VERSION_1 | PROTOCOL | 1 << 5, ACK | 1 << 5 | 1, ACK, true},
                 {VERSION_1 | PROTOCOL, 0, 0, true},
                 {VERSION_1, 0, 0, false}};

    for (size_t i = 0; i < ARRAY_SIZE(backs); i++) {
        struct fixture f = {0};
        struct vhost_ring ring;
        const struct vhost_ring_seg segs[] = {{BASE + 0x80000, 64}, {BASE + 0x90000, 64}};
        uint64_t count;
        uint32_t written;
        void *opaque;

        if (start(&f, backs[i].features, backs[i].protocol) < 0)
            fail_msg("%s", f.err.msg);
        assert_int_equal(f.vu.protocol, backs[i].agreed);
        assert_int_equal(vhost_ring_open(&ring, f.map), 0);
        const struct vhost_user_ring conf = {.index = 1,
                                             .size = VHOST_RING_SIZE,
                                             .desc = BASE,
                                             .avail = BASE + VHOST_RING_AVAIL,
                                             .used = BASE + VHOST_RING_USED,
                                             .kick = eventfd(0, 0),
                                             .call = eventfd(0, 0)};
        assert_int_equal(vhost_user_start_ring(&f.vu, &conf, &f.err), 0);
        memset(f.map + 0x80000, 0x5a, 64);
        assert_true(vhost_ring_add(&ring, segs, 1, 1, &f));
        count = 1;
        assert_int_equal(write(conf.kick, &count, 8), 8);
        assert_int_equal(read(conf.call, &count, 8), 8);
        assert_int_equal(vhost_ring_take(&ring, &opaque, &written), 1);
        assert_int_equal(written, 64);
        assert_int_equal(f.map[0x9003f], 0xa5);
        assert_int_equal(f.b.rings[1].enabled, backs[i].enabled);
        assert_int_equal(f.b.bad, 0);
        close(conf.kick);
        close(conf.call);
        vhost_ring_close(&ring);
        stop(&f);
    }
}

/* Each message refused, answered by closing, with nonsense: one line that names it. */
static void test_failures(void **state)
{
    static const struct {
        uint32_t refuse, close, garble;
        const char *words;
        int code;
    } cases[] = {
        {.refuse = 2, .words = "refuses SET_FEATURES", .code = -EREMOTEIO},
        {.refuse = 5, .words = "refuses SET_MEM_TABLE", .code = -EREMOTEIO},
        {.close = 1, .words = "closed the connection at GET_FEATURES"},
        {.close = 3, .words = "closed the connection at SET_OWNER"},
        {.close = 5, .words = "closed the connection at SET_MEM_TABLE"},
        {.garble = 1, .words = "answers GET_FEATURES with", .code = -EPROTO},
        {.garble = 5, .words = "answers SET_MEM_TABLE with", .code = -EPROTO},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture f = {
            .b.refuse_at = cases[i].refuse, .b.close_at = cases[i].close, .b.garble_at = cases[i].garble};
        int r = start(&f, VERSION_1 | PROTOCOL, ACK);
        assert_true(r < 0);
        if (cases[i].code)
            assert_int_equal(r, cases[i].code);
        if (!strstr(f.err.msg, cases[i].words))
            fail_msg("'%s' has no '%s'", f.err.msg, cases[i].words);
        stop(&f);
    }
}

static void test_features(void **state)
{
    struct fixture f = {0};

    assert_int_equal(start(&f, PROTOCOL, ACK), -ENOTSUP);
    assert_non_null(strstr(f.err.msg, "needed are 0x100000000"));
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serves),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_features),
    };
    return cmocka_run_group_tests_name("vhost_user", tests, NULL, NULL);
}
