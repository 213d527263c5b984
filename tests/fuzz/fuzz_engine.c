/*
 * An engine (VIREO_TEST_ENGINE in the environment, else the reference) under code of any kind at privilege level 0. An input is an
 * image like those of tests/asm, which are the seeds: they set up every mode, tables, tasks and breakpoints, so that a changed byte
 * leads to states that no program makes on purpose. Nothing is expected but that the engine comes back with a state that the SDM
 * allows.
 */
#include <stdio.h>
#include <stdlib.h>

#include "box/box.h"
#include "fuzz.h"

#define LOAD_ADDR 0xa000
#define ENTRY_OFF 28 /* in the multiboot header */
#define RAM_SIZE  (2 * MIB)
#define MAX_INSNS 20000
#define MAX_MS    30 /* a repeated string instruction counts once, however long it takes */

static struct box box;

static void close_box(void)
{
    box_close(&box);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *engine = getenv("VIREO_TEST_ENGINE");
    struct err err;

    if (box_open(&box, engine ? engine : "interp", RAM_SIZE, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(2);
    }
    atexit(close_box);
    return 0;
}

static void start_state(struct x86_state *st, uint32_t entry)
{
    const uint16_t attr = X86_SEG_P | X86_SEG_S | X86_SEG_DB | X86_SEG_G | X86_SEG_WRITE | X86_SEG_ACCESSED;

    x86_state_reset(st, true);
    st->cr0 = X86_CR0_PE | X86_CR0_ET;
    st->rip = entry;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){.sel = 0x10, .limit = UINT32_MAX, .attr = attr};
    st->seg[X86_CS] = (struct x86_seg){.sel = 0x08, .limit = UINT32_MAX, .attr = attr | X86_SEG_CODE};
}

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_state(const struct x86_state *st)
{
    bool paging = st->cr0 & X86_CR0_PG, lma = st->efer & X86_EFER_LMA;

    require(!paging || (st->cr0 & X86_CR0_PE));
    require(lma == (paging && (st->efer & X86_EFER_LME)));
    require(!lma || (st->cr4 & X86_CR4_PAE));
    require(!(st->cr4 & X86_CR4_PCIDE) || lma);
    require(!lma || !(st->rflags & X86_FLAG_VM));
    require(st->rflags & X86_FLAG_FIXED);
    require(!(st->rflags & ~UINT64_C(0x3f7fd7)));
    require(x86_code64(st) || !(st->rip >> 32));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct x86_state st;

    if (size < ENTRY_OFF + 4)
        return 0;
    if (ram_zero(&box.ram, 0, RAM_SIZE))
        return 0;
    box_poke(&box, LOAD_ADDR, data, size);
    start_state(&st, load_le32(data + ENTRY_OFF));
    box.apic_base = 0xfee00900;
    box.cr8 = 0;
    box.type->set(box.vcpu, &st);
    (void)box_run(&box, size % 4 ? MAX_INSNS : 0, MAX_MS);
    box.type->get(box.vcpu, &st);
    check_state(&st);
    return 0;
}
