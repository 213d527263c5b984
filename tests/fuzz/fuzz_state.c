/*
 * A saved state with the right hashes and anything else in it: loaded into a machine, which then runs for a moment.
 *
 * Byte 0: bit 0 the engine. Then edits of 5 bytes: which block, an offset (2) into it, a value, and what for: 0 it is put there, 1 added, 2 XORed, 3 four bytes of it,
 * 4 the block ends there.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "machine/machine.h"
#include "state/saved.h"

#define EDIT   5
#define MOMENT NS_PER_MS

static struct saved good;
static const struct engine_type *engines[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err;

    log_set_level(LOG_LEVEL_ERROR);
    engines[0] = engine_find("interp", &err);
    engines[1] = engine_find("bt", &err);
    struct machine *m = saved_machine(engines[0], NULL, 0);
    saved_stir(m);
    saved_take(m, &good);
    machine_close(m);
    return 0;
}

static void edit(struct saved *s, const uint8_t *e)
{
    struct saved_block *b = &s->blocks[e[0] % s->n];
    size_t at = load_le16(e + 1);

    if (!b->len)
        return;
    at %= b->len;
    switch (e[4] % 5) {
    case 0:
        b->data[at] = e[3];
        break;
    case 1:
        b->data[at] = (uint8_t)(b->data[at] + e[3]);
        break;
    case 2:
        b->data[at] ^= e[3];
        break;
    case 3:
        for (size_t i = at; i < b->len && i < at + 4; i++)
            b->data[i] = e[3];
        break;
    default:
        b->len = at;
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct saved s = good;
    struct machine *m;
    struct err err;

    for (unsigned i = 0; i < s.n; i++) {
        s.blocks[i].data = malloc(s.blocks[i].len ? s.blocks[i].len : 1);
        if (!s.blocks[i].data)
            abort();
        memcpy(s.blocks[i].data, good.blocks[i].data, good.blocks[i].len);
    }
    for (size_t at = 1; at + EDIT <= size; at += EDIT)
        edit(&s, data + at);
    int fd = saved_file(&s);
    if (saved_load(fd, engines[size ? data[0] & 1 : 0], MOMENT, &m, &err) == 0) {
        if (vm_run(&m->vm, &err) < 0)
            abort();
        machine_close(m);
    }
    close(fd);
    saved_free(&s);
    return 0;
}
