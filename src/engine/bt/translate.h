/*
 * A block on its way from guest bytes to host code: what the translator's stages share.
 *
 * Threads: the vCPU's own.
 */
#ifndef ENGINE_BT_TRANSLATE_H
#define ENGINE_BT_TRANSLATE_H

#include "engine/bt/bt.h"
#include "x86/decode.h"

#define TRANSLATE_INSNS 48 /* in a block at most */

/* Where the guest's status flags are between two instructions of generated code. */
enum flags_at {
    FLAGS_LIVE,  /* in EFLAGS */
    FLAGS_SAVED, /* in bt->flags; EFLAGS are anything */
    FLAGS_BOTH,
};

struct trans;

/* The parts of a memory operand's address. Registers are the guest's numbers. */
struct mem_operand {
    uint8_t base, index, scale; /* EMIT_NONE where there is none */
    int64_t disp;
    bool addr32; /* the effective address is cut to 32 bits */
    bool rip;    /* RIP-relative: disp is the address */
    bool fs, gs;
    uint8_t size; /* bytes accessed */
    bool write;
    uint8_t align;   /* 0, or #GP unless a multiple of this */
    bool bit_string; /* register `bits` counts bits from there, in words of `size` (4 or 8): BT and its kin */
    uint8_t bits;
};

/* An instruction's part in sharing a check: group.c. */
struct trans_group {
    enum { GROUP_NONE, GROUP_LEADS, GROUP_FOLLOWS } role;
    /* Of a leader: the range [base + low, base + high) of all members, whether one writes, the last one's index. */
    int32_t low, high;
    bool write;
    uint8_t last;
};

struct trans_insn {
    struct x86_insn xi;
    const uint8_t *bytes;
    uint64_t rip;
    uint32_t flags_read;    /* status flags */
    uint32_t flags_written; /* always, to something defined: what was in them before is gone */
    bool flags_changed;     /* may change some */
    bool faults;            /* may fault or leave to C: all flags before it can be seen */
    bool traps;             /* its host instruction may raise an exception, which is the guest's: simd.c, DIV */
    bool x87;               /* needs the x87 registers in the host's */
    bool aligned;           /* #GP(0) unless its memory operand is aligned to its size */
    uint32_t flags_wanted;  /* flags before it that may still be seen or used */
    uint32_t flags_after;   /* the same behind it */
    /* How it is translated; NULL: interpreted. false: not in this form, so interpreted after all (nothing emitted). */
    bool (*emit)(struct trans *t, const struct trans_insn *in);
    bool ends;     /* the block */
    bool has_mem;  /* its one memory operand is `mem`, and mem_check()ed by its emit() */
    bool keeps_t1; /* its code leaves T1 alone, but for a check of `mem` */
    struct mem_operand mem;
    struct trans_group group;
};

/* A piece of code that is seldom run, to be put behind the block. */
struct trans_stub {
    uint8_t *from[3]; /* jumps that lead there, displacements; NULL where unused */
    const uint8_t *resume;
    uint64_t rip;
    uint32_t group; /* 0, or bytes of the group of instructions that the interpreter runs */
    struct bt_link *link;
    uint32_t link_number;
    uint64_t target;
    const uint8_t *retry; /* of a check in the TLB that from[0] has failed: where it begins; else NULL */
    bool lin;             /* T0 holds the linear address then; else that differs from it by the tag at [T1 + tag] */
    int32_t tag;
    uint16_t light;    /* LIGHT_ bits of it */
    bool trapped;      /* a trap leads there */
    bool x87;          /* a slow path that comes back with the x87 registers in the host's */
    bool live;         /* comes with the flags in EFLAGS: a slow path from a trap */
    const uint8_t *at; /* where it stands at last */
    bool untranslated; /* there is no fast path that this is the slow one of */
    enum { STUB_SLOW, STUB_EXIT } kind;
};

/* A host instruction that may trap. */
struct trans_trap {
    const uint8_t *at;
    const struct trans_stub *stub;
};

/*
 * A place in the code that depends on the linear address of the block, should it be wanted at another one. RELOC_SLOT is that of the
 * TLB's entry for the page in the RELOC_LINEAR before it.
 */
#define RELOC_LINEAR (0u << 14) /* 64 bits: an address as far from the block's as ever */
#define RELOC_SLOT   (1u << 14) /* 32 bits: an offset in the TLB's table */
#define RELOC_FAR    (2u << 14) /* 32 bits: a displacement to code outside the block */
#define RELOC_KIND   (3u << 14)
#define RELOCS_MAX   256

struct trans {
    struct bt *bt;
    struct bt_block *block;
    struct emit e;
    bool code64;
    enum flags_at flags;
    bool x87;                 /* the x87 registers are the host's from here to the block's end */
    unsigned n, at;           /* instructions; the current one */
    struct trans_stub *group; /* the slow path of the group being emitted, or NULL */
    unsigned n_stubs, n_traps;
    uint64_t page2; /* linear address of the page behind the block's */
    struct trans_insn insn[TRANSLATE_INSNS];
    struct trans_stub stub[3 * TRANSLATE_INSNS + 8];
    struct trans_trap trap[TRANSLATE_INSNS];
    unsigned n_relocs, n_linear; /* more than RELOCS_MAX: too many to move the block; those of kind RELOC_LINEAR */
    uint16_t reloc[RELOCS_MAX];
};

/*
 * Translates at most `max` instructions of the `avail` bytes at `bytes` into `room`; block->rip, gpa, mode and crosses are set. Fills the
 * block. Returns the bytes of code, or 0: with block->source_len 0 the first instruction does not end within `avail`, else room ran out.
 */
size_t translate(struct bt *bt, struct bt_block *block, const uint8_t *bytes, size_t avail, unsigned max, uint8_t *room,
                 size_t len);

/*
 * Puts a way to the interpreter for the instruction behind the block; `from` is a jump to it. It comes back to where the code stands at
 * translate_resume(), with all flags in EFLAGS and in bt->flags. Flags must be saved.
 */
struct trans_stub *translate_slow(struct trans *t, const struct trans_insn *in, uint8_t *from);
void translate_resume(struct trans *t, struct trans_stub *stub);

/* The host instruction about to be emitted may raise an exception: that leads to the stub, which may have no other jump to it. */
void translate_trap(struct trans *t, struct trans_stub *stub);

/* Under engine_conf.profile: counts. EFLAGS are overwritten. */
void translate_count(struct trans *t, enum engine_translator_count which);

/* A direct way out to RIP `target`; `from` is the jump. */
void translate_exit(struct trans *t, uint8_t *from, uint64_t target);

/*
 * MOV of a linear address that follows from the block's own. Blocks are moved to other linear addresses only where every 64-bit constant
 * was emitted here.
 */
void trans_linear(struct trans *t, unsigned reg, uint64_t lin);

/* The four bytes just emitted are the offset of the TLB's entry for the address trans_linear() was last called with. */
void trans_slot(struct trans *t);

/* ---- flags.c ---- */

/* Sets flags_wanted for all instructions, from the last to the first. */
void flags_analyse(struct trans *t);

/* EFLAGS are about to be overwritten by code of ours. */
void flags_keep(struct trans *t);

/* Whether the instruction needs what EFLAGS hold before it: reads some, or leaves some as they are that are wanted. */
bool flags_needs(const struct trans_insn *in);

/* EFLAGS must hold that. T0 is free. */
void flags_need(struct trans *t, const struct trans_insn *in);

/* An instruction of the guest has put its own into EFLAGS. */
static inline void flags_put(struct trans *t)
{
    t->flags = FLAGS_LIVE;
}

/* EFLAGS to bt->flags and back; T0 is overwritten. */
void flags_emit_save(struct emit *e, const struct bt *bt);
void flags_emit_restore(struct emit *e, const struct bt *bt);

/* ---- memory.c ---- */

/* How generated code reaches the operand after mem_check(): [base + index << scale + disp], host registers. */
struct mem_host {
    uint8_t base, index;
    int32_t disp;
    bool t0_free; /* T0 holds no part of the address */
};

/* The operand can be named as it stands with T1 added. */
bool mem_is_plain(const struct mem_operand *mem);

/* From a decoded operand. false: not one for the fast path. */
bool mem_operand(const struct trans_insn *in, const ZydisDecodedOperand *op, bool code64, struct mem_operand *mem);

/*
 * Emits the check that the access may be made, and the way to slow code when not. Destroys T0, T1 and EFLAGS (saved before). With `want_t0`
 * the result leaves T0 free. The slow code interprets the whole instruction: translate_resume() says where it comes back. NULL: it shares
 * an earlier check, and has no slow path.
 */
struct trans_stub *mem_check(struct trans *t, const struct trans_insn *in, const struct mem_operand *mem, bool want_t0,
                             struct mem_host *host);

/* MOV of the address `addr`, which follows from the operand's alone. */
void mem_constant(struct trans *t, unsigned reg, const struct mem_operand *mem, uint64_t addr);

/* The operand's linear address into T0; uses T1. No flags are changed. */
void mem_address(struct trans *t, const struct mem_operand *mem);

/* ---- group.c ---- */

/* Finds accesses that can share a check: sets `group`, and clears `faults` of those that follow. */
void group_find(struct trans *t);

/*
 * Where bt->solo says of the check of the block's instruction at RIP that it is not to be shared. By physical address, so that it holds wherever a
 * process has the code.
 */
static inline unsigned group_solo_slot(const struct bt_block *block, uint64_t rip)
{
    uint64_t gpa = block->gpa + (rip - block->rip);
    return (unsigned)((gpa * UINT64_C(0x9e3779b97f4a7c15)) >> 52) % BT_SOLO;
}

/* ---- recode.c ---- */

/* NOP and PREFETCH: nothing at all, whatever their operands. */
bool recode_is_hint(const struct trans_insn *in);

/* Sets in->emit where the instruction runs as it is, its operands replaced. */
void recode_classify(const struct trans *t, struct trans_insn *in);

/* For an instruction whose emit() is recode: its memory operand, and whether it keeps T1. */
void recode_note(const struct trans *t, struct trans_insn *in);
bool recode(struct trans *t, const struct trans_insn *in);

/* ---- simd.c ---- */

/* Sets in->emit and what goes with it where the instruction is SIMD. `bound`: as the interpreter sees it. */
void simd_classify(const struct trans *t, struct trans_insn *in, const struct insn *bound);

/* ---- x87.c ---- */

/* The same where the instruction is x87 or MMX. */
void x87_classify(const struct trans *t, struct trans_insn *in, const struct insn *bound);

/* ---- pushpop.c, flow.c, system.c, entry.c: classify sets in->emit, in->faults and in->ends where the instruction is one of theirs ---- */

void pushpop_classify(const struct trans *t, struct trans_insn *in);
void flow_classify(const struct trans *t, struct trans_insn *in);
void system_classify(const struct trans *t, struct trans_insn *in);
void entry_classify(const struct trans *t, struct trans_insn *in);

/* A word of the stack at [base + disp]. */
struct mem_operand pushpop_slot(const struct trans *t, unsigned base, int32_t disp, bool write);

/* Adds to the stack pointer; no flags. */
void pushpop_move(struct trans *t, int32_t by);

/* PUSH of a constant; the caller says where its slow path comes back, if it does. */
struct trans_stub *pushpop_constant(struct trans *t, const struct trans_insn *in, uint64_t value);

/* Leaves the block for `rip`. */
void flow_exit(struct trans *t, uint64_t rip);

/* The jump through the jump cache to the RIP in T0, with the flags saved. */
void flow_jump_through(struct emit *e, const struct bt *bt);

/* ---- registers ---- */

/* The privilege of the block's code, and who accesses memory. */
static inline unsigned trans_cpl(const struct trans *t)
{
    return (t->bt->mode & BT_MODE_CPL) >> BT_MODE_CPL_SHIFT;
}

static inline enum mmu_index trans_mmu(const struct trans *t)
{
    return (t->bt->mode & BT_MODE_MMU) >> BT_MODE_MMU_SHIFT;
}

/* Whether a guest register lives in memory. */
static inline bool trans_in_memory(unsigned gpr)
{
    return gpr == BT_T0 || gpr == BT_T1;
}

void trans_load(struct trans *t, unsigned host, unsigned gpr);
void trans_store(struct trans *t, unsigned host, unsigned gpr);

#endif
