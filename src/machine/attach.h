/*
 * What is attached to a machine's PCI bus by a specification, before it runs or while it does: disks, network interfaces and so on. kinds.def lists
 * the kinds; the command line's options and the control socket's `attach` come from it. Each attachment is a virtio device with a slot, an id, and
 * a thread that it works on.
 *
 * Threads: the loop's, or before vm_run().
 */
#ifndef MACHINE_ATTACH_H
#define MACHINE_ATTACH_H

#include "virtio/virtio_pci.h"

#define ATTACH_ID_SIZE 32

struct machine;

/* Where an attachment's figures go. */
struct attach_figures {
    void (*number)(void *opaque, const char *key, uint64_t value);
    void (*text)(void *opaque, const char *key, const char *value);
    void *opaque;
};

struct attach_kind {
    const char *name; /* "disk": the option, the word in commands, and what ids begin with */
    const struct virtio_type *type;
    size_t conf_size; /* of the kind's own struct; the type's conf comes first in it */
    bool hot;         /* may come and go while the machine runs */
    bool own_thread;  /* moves so much data that it gets a thread of its own; the others share one */
    bool gathers;     /* several specifications at the start make one device */

    /* Adds `spec` to the conf, which is zeroed at first, and sets the id, or leaves it where the spec says none. Opens nothing. */
    int (*parse)(const char *spec, void *conf, char id[ATTACH_ID_SIZE], struct err *err);
    /* Fills in what the machine knows and refuses what does not go with what is attached already; may be NULL. */
    int (*prepare)(struct machine *m, void *conf, struct err *err);
    /* Tells what it has done so far, for `--stats` and the control socket; may be NULL. */
    void (*figures)(struct device *dev, const struct attach_figures *out);
};

struct attachment {
    const struct attach_kind *kind;
    char id[ATTACH_ID_SIZE];
    unsigned slot; /* its device number on PCI bus 0 */
    struct device *dev;
    struct iothread *io; /* its own, or NULL: the machine's */
    void *conf;          /* the kind's own struct */
    bool asked;          /* the guest has been asked to let go of it */
    struct attachment *next;
};

/* Whether `spec` is well-formed for the kind called `kind`; -EINVAL and one line. Opens nothing. */
int attach_check(const char *kind, const char *spec, struct err *err) MUST_CHECK;

/* Opens what a spec says and puts it on the bus; a running guest is told. Several specs: of a kind that gathers. -errno and one line. */
int attach_open(struct machine *m, const char *kind, const char *const *specs, unsigned n, struct attachment **out,
                struct err *err) MUST_CHECK;

/* Whether an attachment may stand there. */
bool attach_slot_valid(unsigned slot);

/* Closes now what the guest has let go of and is yet to be closed. */
void attach_close_ejected(struct machine *m);

/* Whether several specs of the kind make one device. */
bool attach_gathers(const char *kind);

/* Asks the guest to let go of an attachment; when it has, the attachment is gone and m->detached is called. */
int attach_ask_close(struct machine *m, const char *id, struct err *err) MUST_CHECK;

/* By id; NULL and one line that lists those there are. */
struct attachment *attach_find(struct machine *m, const char *id, struct err *err);

/* q35_conf.ejected: any thread. */
void attach_ejected(void *machine, unsigned slot);

/* Frees what belongs to attachments, when the VM's devices are closed. */
void attach_close_all(struct machine *m);

#define KIND(name, syntax, help) extern const struct attach_kind attach_##name;
#include "machine/kinds.def"
#undef KIND

#endif
