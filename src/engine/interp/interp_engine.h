/* The reference engine as the registry sees it; and what its vCPUs share. */
#ifndef ENGINE_INTERP_INTERP_ENGINE_H
#define ENGINE_INTERP_INTERP_ENGINE_H

#include <pthread.h>

#include "engine/interp/bind.h"

extern const struct engine_type interp_engine;

struct engine {
    struct ram *ram;
    struct bind_map map;
    pthread_mutex_t bus_lock;  /* LOCKed accesses that one host instruction cannot make: across pages, or to devices */
    pthread_mutex_t code_lock; /* one code_mark() at a time; guards vcpus */
    uint64_t code_gpa;         /* what the request of code_epoch is about */
    _Atomic uint64_t code_epoch;
    struct interp **vcpus; /* by index; NULL where not open */
    unsigned n_vcpus;
};

/*
 * The bus lock. While it waits, the vCPU answers other vCPUs' requests. A fault raised while it is held releases it, so check what
 * can fault first, for the sake of atomicity.
 */
void interp_bus_lock(struct interp *c);
void interp_bus_unlock(struct interp *c);

#endif
