/*
 * The guest's status flags in generated code. They live in EFLAGS, which code of ours (the TLB's check above all) overwrites; so before that they
 * are saved to memory by LAHF and SETO where somebody may still see them, and restored by SAHF where somebody reads them.
 *
 * Somebody is: an instruction that reads flags or leaves some as they were; every instruction that may fault, for the handler sees them;
 * whatever follows the block, behind a conditional jump out of it as well. A flag that the manual leaves undefined counts as left alone.
 */
#include "engine/bt/translate.h"

void flags_analyse(struct trans *t)
{
    uint32_t wanted = X86_FLAGS_STATUS;

    for (unsigned i = t->n; i-- > 0;) {
        struct trans_insn *in = &t->insn[i];
        in->flags_after = wanted;
        bool seen = in->faults || in->traps || in->xi.insn.meta.category == ZYDIS_CATEGORY_COND_BR;
        wanted = in->flags_read | (seen ? X86_FLAGS_STATUS : 0) | (wanted & ~in->flags_written);
        in->flags_wanted = wanted;
    }
}

void flags_emit_save(struct emit *e, const struct bt *bt)
{
    emit_rr(e, EMIT_64, EMIT_MOV_STORE, EMIT_RAX, BT_T0);
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit8(e, 0x66);
    emit_abs(e, EMIT_32, EMIT_MOV_STORE, EMIT_RAX, BT_ABS(bt, flags));
    emit_rr(e, EMIT_64, EMIT_MOV_STORE, BT_T0, EMIT_RAX);
}

void flags_emit_restore(struct emit *e, const struct bt *bt)
{
    emit_rr(e, EMIT_64, EMIT_MOV_STORE, EMIT_RAX, BT_T0);
    emit_abs(e, EMIT_32, EMIT_MOVZX16, EMIT_RAX, BT_ABS(bt, flags));
    EMIT(e, 0x3c, 0x81, 0x9e); /* cmp al, -127: overflows for AL = 1; sahf */
    emit_rr(e, EMIT_64, EMIT_MOV_STORE, BT_T0, EMIT_RAX);
}

void flags_keep(struct trans *t)
{
    if (t->flags == FLAGS_LIVE)
        flags_emit_save(&t->e, t->bt);
    t->flags = FLAGS_SAVED;
}

bool flags_needs(const struct trans_insn *in)
{
    return in->flags_read || (in->flags_changed && (in->flags_after & ~in->flags_written));
}

void flags_need(struct trans *t, const struct trans_insn *in)
{
    if (t->flags != FLAGS_SAVED || !flags_needs(in))
        return;
    flags_emit_restore(&t->e, t->bt);
    t->flags = FLAGS_BOTH;
}
