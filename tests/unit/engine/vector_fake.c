/* See vector_fake.h: stands in for mmu.c, seg.c and fault.c. */
#include "vector_fake.h"

#include <stdlib.h>

#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"
#include "engine/interp/vector.h"
#include "unit.h"

struct fake {
    struct interp c;
    uint8_t memory[FAKE_SIZE] __attribute__((aligned(64)));
    bool device;
};

struct interp *fake_open(void)
{
    struct fake *f = aligned_alloc(64, align_up(sizeof(*f), 64));
    assert_non_null(f);
    memset(f, 0, sizeof(*f));
    for (unsigned i = 0; i < MMU_N; i++)
        for (unsigned j = 0; j < TLB_SIZE; j++)
            f->c.tlb[i][j].read = f->c.tlb[i][j].write = TLB_NONE;
    assert_int_equal(vector_open(&f->c.vector, NULL), 0);
    return &f->c;
}

void fake_close(struct interp *c)
{
    vector_close(c->vector);
    free(CONTAINER_OF(c, struct fake, c));
}

uint8_t *fake_memory(struct interp *c)
{
    return CONTAINER_OF(c, struct fake, c)->memory;
}

void fake_copy(struct interp *to, const struct interp *from)
{
    to->st = from->st;
    memcpy(fake_memory(to), fake_memory((struct interp *)from), FAKE_SIZE);
}

void fake_set_device(struct interp *c, bool device)
{
    CONTAINER_OF(c, struct fake, c)->device = device;
}

unsigned fake_run(struct interp *c, const struct insn *in)
{
    int raised = setjmp(c->unwind);
    if (raised)
        return c->fault.vector;
    c->cur = in;
    in->fn(c, in);
    return FAKE_NONE;
}

void interp_raise(struct interp *c, enum x86_vector vector)
{
    c->fault.vector = vector;
    longjmp(c->unwind, 1);
}

void interp_raise_error(struct interp *c, enum x86_vector vector, uint32_t error)
{
    c->fault.error = error;
    interp_raise(c, vector);
}

static uint8_t *host(struct interp *c, uint64_t lin, unsigned len)
{
    if (lin < FAKE_BASE || lin - FAKE_BASE > FAKE_SIZE || len > FAKE_SIZE - (lin - FAKE_BASE)) {
        c->fault.cr2 = lin;
        interp_raise(c, X86_PF);
    }
    return fake_memory(c) + (lin - FAKE_BASE);
}

uint8_t *mmu_host_read(struct interp *c, uint64_t lin, unsigned len)
{
    uint8_t *p = host(c, lin, len);
    return CONTAINER_OF(c, struct fake, c)->device ? NULL : p;
}

uint8_t *mmu_host_write(struct interp *c, uint64_t lin, unsigned len)
{
    return mmu_host_read(c, lin, len);
}

void mmu_check_write(struct interp *c, uint64_t lin, unsigned len)
{
    host(c, lin, len);
}

void mmu_load_bytes(struct interp *c, uint64_t lin, void *buf, unsigned len)
{
    memcpy(buf, host(c, lin, len), len);
}

void mmu_store_bytes(struct interp *c, uint64_t lin, const void *buf, unsigned len)
{
    memcpy(host(c, lin, len), buf, len);
}

uint64_t mmu_load_slow(struct interp *c, uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    mmu_load_bytes(c, lin, &v, size);
    return v;
}

void mmu_store_slow(struct interp *c, uint64_t lin, uint64_t v, unsigned size)
{
    mmu_store_bytes(c, lin, &v, size);
}

uint64_t seg_lin(struct interp *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    return c->st.seg[seg].base + off;
}
