/* A ring into a descriptor: order, back-pressure, what is kept for a newcomer, and ends that go away. */
#include "console/output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit.h"

struct fixture {
    struct loop *loop;
    struct chardev dev;
    struct output out;
    int ends[2];
    int failed; /* errno */
    int writable;
};

static void on_failed(void *opaque, int error)
{
    struct fixture *f = opaque;
    f->failed = error;
}

static void on_writable(void *opaque)
{
    struct fixture *f = opaque;
    f->writable++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(loop_open(&f->loop, NULL), 0);
    assert_int_equal(pipe2(f->ends, O_NONBLOCK | O_CLOEXEC), 0);
    output_init(&f->out, f->loop, &f->dev, on_failed, f);
    f->dev.receiver = (struct chardev_receiver){.writable = on_writable, .opaque = f};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    output_fini(&f->out);
    loop_close(f->loop);
    close(f->ends[0]);
    close(f->ends[1]);
    free(f);
    return 0;
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

/* Lets the loop serve what is posted by now. */
static void serve(struct fixture *f)
{
    assert_int_equal(loop_post(f->loop, stop, f->loop), 0);
    loop_run(f->loop);
}

static void fill(uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(i * 7 + i / 251);
}

/* Takes `len` bytes out of the pipe, letting the loop refill it, and compares them with fill()'s from `from` on. */
static void expect(struct fixture *f, const uint8_t *want, size_t len)
{
    uint8_t got[512];

    for (size_t at = 0; at < len;) {
        size_t chunk = len - at < sizeof(got) ? len - at : sizeof(got);
        ssize_t n = read(f->ends[0], got, chunk);
        if (n > 0) {
            assert_memory_equal(got, want + at, (size_t)n);
            at += (size_t)n;
        } else {
            serve(f);
        }
    }
}

static void test_slow_reader_holds_output_back(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[4 * CHARDEV_BUFFER];

    fill(data, sizeof(data));
    fcntl(f->ends[1], F_SETPIPE_SZ, 4096);
    output_attach(&f->out, f->ends[1]);
    size_t sent = 0;
    for (int i = 0; i < 8; i++) {
        sent += output_write(&f->out, data + sent, sizeof(data) - sent);
        serve(f);
    }
    /* What nobody has read is in the ring and in the pipe, and nowhere else. */
    assert_true(sent >= CHARDEV_BUFFER && sent <= CHARDEV_BUFFER + 4096);
    assert_int_equal(output_room(&f->out), 0);
    assert_true(f->writable > 0);
    int told = f->writable;
    expect(f, data, sent);
    serve(f);
    assert_true(f->writable > told);
    assert_int_equal(output_room(&f->out), CHARDEV_BUFFER);
    assert_int_equal(f->failed, 0);
}

static void test_newcomer_gets_the_newest(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[CHARDEV_BUFFER + 1000];

    fill(data, sizeof(data));
    assert_int_equal(output_write(&f->out, data, sizeof(data)), sizeof(data));
    assert_int_equal(output_room(&f->out), CHARDEV_BUFFER);
    output_attach(&f->out, f->ends[1]);
    expect(f, data + 1000, CHARDEV_BUFFER);
}

static void test_reader_gone(void **state)
{
    struct fixture *f = *state;

    output_attach(&f->out, f->ends[1]);
    close(f->ends[0]);
    f->ends[0] = -1;
    assert_int_equal(output_write(&f->out, (const uint8_t *)"x", 1), 1);
    serve(f);
    assert_int_equal(f->failed, EPIPE);
    /* From now on it goes nowhere, and never blocks. */
    static uint8_t data[2 * CHARDEV_BUFFER];
    assert_int_equal(output_write(&f->out, data, sizeof(data)), sizeof(data));
}

static void test_waiting_guest_is_released_by_detach(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[2 * CHARDEV_BUFFER];

    fcntl(f->ends[1], F_SETPIPE_SZ, 4096);
    output_attach(&f->out, f->ends[1]);
    assert_true(output_write(&f->out, data, sizeof(data)) < sizeof(data));
    f->writable = 0;
    output_detach(&f->out);
    assert_int_equal(f->writable, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slow_reader_holds_output_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newcomer_gets_the_newest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_guest_is_released_by_detach, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
