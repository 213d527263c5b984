/* The set of descriptors that are watched follows what is named in each round. */
#include "net/user_watch.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../unit.h"

/* Whether the loop would be woken. */
static bool wakes(const struct user_watch *w)
{
    struct pollfd p = {.fd = w->epoll_fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static void name(struct user_watch *w, int fd, uint32_t events)
{
    user_watch_begin(w);
    if (events)
        assert_int_equal(user_watch_name(w, fd, events), fd);
    user_watch_end(w);
}

static void test_rounds(void **state)
{
    struct user_watch w;
    int ends[2], again[2];

    assert_int_equal(user_watch_open(&w), 0);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    name(&w, ends[0], EPOLLOUT);
    assert_false(wakes(&w));
    name(&w, ends[0], EPOLLIN);
    assert_true(wakes(&w));
    user_watch_collect(&w);
    assert_int_equal(user_watch_ready(&w, ends[0]), EPOLLIN);
    assert_int_equal(user_watch_ready(&w, 100000), 0);
    user_watch_clear(&w);
    assert_int_equal(user_watch_ready(&w, ends[0]), 0);

    /* Not named, not watched: not even its hang-up wakes. */
    name(&w, ends[0], 0);
    assert_false(wakes(&w));
    close(ends[1]);
    assert_false(wakes(&w));
    name(&w, ends[0], EPOLLIN);
    assert_true(wakes(&w));

    /* Closed without a word, and another under the same number. */
    int old = ends[0];
    close(ends[0]);
    assert_int_equal(pipe(again), 0);
    assert_int_equal(again[0], old);
    name(&w, again[0], EPOLLIN | EPOLLPRI);
    assert_int_equal(write(again[1], "x", 1), 1);
    assert_true(wakes(&w));
    user_watch_forget(&w, again[0]);
    user_watch_forget(&w, again[0]);
    assert_false(wakes(&w));
    close(again[0]);
    close(again[1]);
    user_watch_begin(&w);
    assert_int_equal(user_watch_name(&w, -1, EPOLLIN), -1);
    assert_int_equal(user_watch_name(&w, again[0], EPOLLIN), -1);
    user_watch_end(&w);
    user_watch_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounds)};

    return cmocka_run_group_tests_name("user_watch", tests, NULL, NULL);
}
