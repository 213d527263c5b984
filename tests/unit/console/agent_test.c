/* What a guest's agent says, and what a guest says that is none. */
#include "console/agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit.h"

/* The guest's end: what it was sent, and what it says to that. */
struct guest {
    struct loop *loop;
    struct agent *agent;
    bool open;
    size_t room;
    char seen[1024];
    size_t n_seen;
    const char *sync_answer, *answer; /* printf formats for the id; NULL: none */
    unsigned n_commands;
    struct agent_answer got;
    bool done;
    struct loop_event reply;
};

static size_t can_receive(void *opaque)
{
    const struct guest *g = opaque;

    return g->open ? g->room : 0;
}

static void say(struct guest *g, const char *fmt, long long id)
{
    char text[512];
    struct chardev *dev = agent_chardev(g->agent);

    int n = snprintf(text, sizeof(text), fmt, id);
    assert_int_equal(chardev_write(dev, (const uint8_t *)text, (size_t)n), (size_t)n);
}

/* Whole lines are answered, from the loop. */
static void reply(void *opaque)
{
    struct guest *g = opaque;
    char *end;

    while ((end = memchr(g->seen, '\n', g->n_seen))) {
        *end = '\0';
        const char *id = strstr(g->seen, "\"id\": ");
        char line[1024];
        strcpy(line, g->seen);
        long long number = id ? atoll(id + 6) : 0;
        g->n_seen -= (size_t)(end + 1 - g->seen);
        memmove(g->seen, end + 1, g->n_seen);
        if (id && g->sync_answer) {
            assert_int_equal((uint8_t)line[0], 0xff);
            say(g, g->sync_answer, number);
        } else if (!id) {
            assert_non_null(strstr(line, "guest-fsfreeze-freeze"));
            g->n_commands++;
            if (g->answer)
                say(g, g->answer, 0);
        }
    }
    chardev_accept_input(agent_chardev(g->agent));
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct guest *g = opaque;

    assert_true(g->n_seen + len < sizeof(g->seen));
    memcpy(g->seen + g->n_seen, buf, len);
    g->n_seen += len;
    loop_event_set(&g->reply);
}

static int setup(void **state)
{
    struct guest *g = calloc(1, sizeof(*g));

    assert_int_equal(loop_open(&g->loop, NULL), 0);
    assert_int_equal(agent_open(&g->agent, g->loop, g->loop, NULL), 0);
    loop_event_init(&g->reply, g->loop, reply, g);
    const struct chardev_receiver receiver = {.can_receive = can_receive, .receive = receive, .opaque = g};
    chardev_connect(agent_chardev(g->agent), &receiver);
    g->open = true;
    g->room = 7; /* it comes in pieces */
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    struct guest *g = *state;

    loop_event_fini(&g->reply);
    chardev_close(agent_chardev(g->agent));
    loop_close(g->loop);
    free(g);
    return 0;
}

static void done(void *opaque, const struct agent_answer *answer)
{
    struct guest *g = opaque;

    g->got = *answer;
    g->done = true;
    loop_stop(g->loop);
}

static int ask(struct guest *g)
{
    g->done = false;
    assert_int_equal(agent_ask(g->agent, AGENT_FREEZE, done, g), 0);
    assert_int_equal(agent_ask(g->agent, AGENT_FREEZE, done, g), -EBUSY);
    loop_run(g->loop);
    assert_true(g->done);
    return g->got.result;
}

static void test_answers(void **state)
{
    struct guest *g = *state;

    g->sync_answer = "\xff{\"return\": %lld}\n";
    g->answer = "{\"return\": 3}\n";
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ask(g), 0);
        assert_int_equal(g->got.count, 3);
    }
    assert_int_equal(g->n_commands, 3);
    g->answer = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\nsuch thing\"}}\n";
    assert_int_equal(ask(g), -EREMOTEIO);
    assert_string_equal(g->got.error, "no?such thing");
    g->answer = "{\"error\": 1}\n";
    assert_int_equal(ask(g), -EREMOTEIO);
    assert_string_equal(g->got.error, "no reason");
}

/* Old answers, other lines and lines without end come first. */
static void test_noise(void **state)
{
    struct guest *g = *state;
    struct chardev *dev = agent_chardev(g->agent);
    uint8_t noise[10000];

    memset(noise, '{', sizeof(noise));
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(chardev_write(dev, noise, sizeof(noise)), sizeof(noise));
    g->sync_answer = "]]{\"return\": 1}\n\xff{\"return\": 12}\n[1]\n\n\xff{\"return\": %lld}\n";
    g->answer = "[]\n{\"event\": 1}\n{\"return\": \"x\"}\nnonsense\n{\"return\": 5}\n";
    assert_int_equal(ask(g), 0);
    assert_int_equal(g->got.count, 5);
}

static void test_nobody(void **state)
{
    struct guest *g = *state;

    g->open = false;
    assert_int_equal(ask(g), -ENOTCONN);
}

/* The other end is gone when the answer comes. */
static void test_forgotten(void **state)
{
    struct guest *g = *state;

    g->open = false;
    g->done = false;
    assert_int_equal(agent_ask(g->agent, AGENT_FREEZE, done, g), 0);
    agent_forget(g->agent);
    assert_int_equal(loop_post(g->loop, (void (*)(void *))loop_stop, g->loop), 0);
    loop_run(g->loop);
    assert_false(g->done);
}

/* Who has the port open and says nothing costs some seconds. */
static void test_silence(void **state)
{
    struct guest *g = *state;

    assert_int_equal(ask(g), -ENODATA);
    assert_int_equal(g->n_commands, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
