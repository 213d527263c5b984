/* See op.h: the rare paths of read-modify-write operands. */
#include "engine/interp/op.h"

#define RMW_SLOW(bits, type, sfx, r, ...)                                            \
    void op_rmw_slow##bits(struct interp *c, uint64_t lin, op_fn##bits fn, type b)   \
    {                                                                                \
        uint8_t *host = mmu_host_write(c, lin, (bits) / 8);                          \
        if (host) {                                                                  \
            *(volatile mmu_u##bits *)host = fn(c, *(volatile mmu_u##bits *)host, b); \
            return;                                                                  \
        }                                                                            \
        mmu_check_write(c, lin, (bits) / 8);                                         \
        type a = mmu_load##bits(c, lin);                                             \
        mmu_store##bits(c, lin, fn(c, a, b));                                        \
    }                                                                                \
    void op_lock_slow##bits(struct interp *c, uint64_t lin, op_fn##bits fn, type b)  \
    {                                                                                \
        uint8_t *host = mmu_host_write(c, lin, (bits) / 8);                          \
        if (host) {                                                                  \
            op_lock_host##bits(c, host, fn, b);                                      \
            return;                                                                  \
        }                                                                            \
        mmu_check_write(c, lin, (bits) / 8);                                         \
        interp_bus_lock(c);                                                          \
        type a = mmu_load##bits(c, lin);                                             \
        mmu_store##bits(c, lin, fn(c, a, b));                                        \
        interp_bus_unlock(c);                                                        \
    }
OP_SIZES(RMW_SLOW)
