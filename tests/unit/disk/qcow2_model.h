/*
 * A disk and all that is done to one: requests (qcow2_world.h), and moves between them: flush, snapshots, returns, resizes, bitmaps, closing and opening
 * again. Each kind of move is a row of a table. A move that fails is tried again until it is done, or the host is dead; then the disk holds what it held before
 * the move or after it.
 */
#ifndef TESTS_UNIT_DISK_QCOW2_MODEL_H
#define TESTS_UNIT_DISK_QCOW2_MODEL_H

#include "disk/disk_create.h"
#include "qcow2_world.h"

#define MODEL_SNAPSHOTS 5

struct model_shot {
    char name[24];
    struct world_saved saved;
    bool pending; /* its making or removal was cut short: it is there or not */
};

struct model {
    struct world w;
    struct model_shot shots[MODEL_SNAPSHOTS];
    unsigned n_shots, next_shot, next_bitmap;
    uint64_t least, most; /* bytes of the disk */
    uint64_t other_size;  /* a resize that was cut short: this or what it was; 0: none */
    uint64_t requests;    /* of one move, at most */
    unsigned long moves, failures;
};

/* The image as disk_create() makes it; `path` for that while, or NULL where `w.fake` is there already. */
void model_init(struct model *m, const struct disk_create_conf *conf, const char *path, uint64_t seed);
void model_fini(struct model *m);
/* From now on snapshots are made and removed while requests are under way, too. */
void model_meanwhile(struct model *m);
/* One random move. False: the host is dead. */
bool model_move(struct model *m);
/* One of a kind; 0 is requests. */
unsigned model_kinds(void);
bool model_make(struct model *m, unsigned kind);
/* Open, and nothing under way: it holds what it must, in snapshots too (`cut`: what it may, and then must). */
void model_check(struct model *m, bool cut);
/* The host died: what it finds afterwards is the image from now on. It is closed. */
void model_cut(struct model *m);

/*
 * disk_check_image() of an image that nobody has open: a failure where it finds an error. `repair`: nothing is left, or the host dies.
 * Returns the leaks that were found.
 */
uint64_t model_sound(struct fake *fake, bool repair);

#endif
