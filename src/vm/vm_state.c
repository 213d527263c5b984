#include "vm/vm_state.h"

#include <errno.h>

#include "x86/state_check.h"

#define RUN_MOST  (1 * MIB) /* of one block of memory */
#define EDGE_PINS (PIN_NMI | PIN_INIT | PIN_SIPI)

/* ---- memory ---- */

static bool is_zero(const uint8_t *page)
{
    const uint64_t *words = (const uint64_t *)(const void *)page;

    for (size_t i = 0; i < RAM_PAGE_SIZE / sizeof(*words); i += 4)
        if (words[i] | words[i + 1] | words[i + 2] | words[i + 3])
            return false;
    return true;
}

/* Bytes from `page` on, whole pages and at most `len`, that belong into one block. */
static uint64_t run_of(const uint8_t *page, uint64_t len)
{
    uint64_t run = 0;

    while (run < len && run < RUN_MOST && !is_zero(page + run))
        run += RAM_PAGE_SIZE;
    return run;
}

static int save_stretch(const struct vm *vm, struct state_file_writer *w, uint32_t kind, uint64_t offset, uint64_t len,
                        const struct vm_state_stop *stop)
{
    while (len) {
        const uint8_t *page = vm->ram.base + offset;
        uint64_t run = run_of(page, len);
        int r = run ? state_file_put(w, kind, offset, page, run) : 0;
        if (r < 0)
            return r;
        if (run && stop && stop->wanted(stop->opaque))
            return -ECANCELED;
        run = run ? run : RAM_PAGE_SIZE;
        offset += run;
        len -= run;
    }
    return 0;
}

int vm_state_save_ram(const struct vm *vm, struct state_file_writer *w, uint32_t kind, const struct vm_state_stop *stop)
{
    uint64_t offset = 0, len;
    int r = 0;

    while (r == 0 && ram_next_backed(&vm->ram, &offset, &len)) {
        r = save_stretch(vm, w, kind, offset, len, stop);
        offset += len;
    }
    return r;
}

int vm_state_load_ram(struct vm *vm, const struct state_file_block *block)
{
    const struct ram *ram = &vm->ram;
    uint64_t gpa = block->number < ram->low ? block->number : block->number - ram->low + RAM_HIGH_BASE;

    if (block->number >= ram->size || block->len > ram->size - block->number || !block->len)
        return -EPROTO;
    return ram_write(&vm->ram, gpa, block->data, block->len) < 0 ? -EPROTO : 0;
}

/* ---- vCPUs ---- */

static void port_state(struct vcpu_port *port, struct stream *s)
{
    uint32_t pins = atomic_load(&port->pending) & EDGE_PINS;
    uint8_t sipi_vector = atomic_load(&port->sipi_vector), nmis = atomic_load(&port->nmis);
    uint64_t tsc_offset = atomic_load(&port->tsc_offset);

    stream_u32(s, &pins);
    stream_u8(s, &sipi_vector);
    stream_u8(s, &nmis);
    stream_u64(s, &tsc_offset);
    if (!s->loading || s->error)
        return;
    if ((pins & ~(uint32_t)EDGE_PINS) || nmis > 2 || !(pins & PIN_NMI) != !nmis) {
        stream_refuse(s, -EPROTO, "a vCPU has pins that there are not");
        return;
    }
    atomic_store(&port->sipi_vector, sipi_vector);
    atomic_store(&port->tsc_offset, tsc_offset);
    atomic_store(&port->nmis, nmis);
    atomic_fetch_or(&port->pending, pins);
}

void vm_state_vcpu(struct vcpu *vcpu, struct stream *s)
{
    struct x86_state st;

    if (!s->loading)
        vcpu_get_state(vcpu, &st); /* first: an engine may learn of the port's state by it */
    else
        x86_state_reset(&st, vcpu->index == 0);
    stream_section(s, "vcpu", 1);
    port_state(&vcpu->port, s);
    x86_state_stream(&st, s);
    if (!s->loading || s->error)
        return;
    const char *wrong = state_check(&st, &vcpu->cpuid);
    if (wrong)
        stream_refuse(s, -EPROTO, "vCPU %u cannot be: %s", vcpu->index, wrong);
    else
        vcpu_set_state(vcpu, &st);
}

/* Each vCPU's paravirtual clock was written when the offsets of those behind it were not yet known. */
void vm_state_loaded(struct vm *vm)
{
    pvclock_tsc_moved(&vm->vcpus[0]->pvclock);
}
