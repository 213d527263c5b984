/*
 * Context switches within an address space: two threads hand a token to and fro through a futex. One iteration is there and
 * back, two switches. `value` belongs to whoever holds the token.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

enum { TOKEN_MAIN, TOKEN_PEER, TOKEN_END };

struct game {
    _Atomic uint32_t token;
    uint64_t value;
    pthread_t peer;
};

static void hand_over(struct game *game, uint32_t token)
{
    atomic_store(&game->token, token);
    syscall(SYS_futex, &game->token, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Returns the token once it is no longer `token`. */
static uint32_t wait_while(struct game *game, uint32_t token)
{
    uint32_t seen;

    while ((seen = atomic_load(&game->token)) == token)
        syscall(SYS_futex, &game->token, FUTEX_WAIT_PRIVATE, token, NULL, NULL, 0);
    return seen;
}

static void *play(void *arg)
{
    struct game *game = arg;

    while (wait_while(game, TOKEN_MAIN) == TOKEN_PEER) {
        game->value = workload_mix(game->value, 7);
        hand_over(game, TOKEN_MAIN);
    }
    return NULL;
}

static int switch_setup(uint64_t n, void **state)
{
    struct game *game = calloc(1, sizeof(*game));
    int r;

    (void)n;
    if (!game)
        return -ENOMEM;
    r = pthread_create(&game->peer, NULL, play, game);
    if (r) {
        free(game);
        return -r;
    }
    *state = game;
    return 0;
}

static int switch_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct game *game = state;

    for (uint64_t i = 0; i < n; i++) {
        game->value = workload_mix(game->value, i);
        hand_over(game, TOKEN_PEER);
        wait_while(game, TOKEN_PEER);
    }
    *checksum = game->value;
    return 0;
}

static void switch_finish(void *state)
{
    struct game *game = state;

    hand_over(game, TOKEN_END);
    pthread_join(game->peer, NULL);
    free(game);
}

const struct workload switch_workload = {
    .name = "switch",
    .unit = "futex round trip between two threads",
    .iterations = 64 << 10,
    .one_cpu = true,
    .setup = switch_setup,
    .run = switch_run,
    .finish = switch_finish,
};
