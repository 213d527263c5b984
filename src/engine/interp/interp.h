/*
 * The reference engine's inside: one vCPU of it, and what its parts offer one another.
 *
 *   interp.c    engine_type: open, run loop, attention, get and set
 *   code.c      the decoded-instruction cache, by physical page and mode
 *   bind.c      from a decoded instruction to a handler with its operands resolved; binds.def lists the handlers' tables
 *   op_*.c      handlers, a file for each group of instructions
 *   mmu.c       linear memory: the software TLB and its slow path (walks live in x86/paging.c); tlb.c is one table of it
 *   seg.c       segmented addresses, descriptors and segment loads
 *   fault.c     raising exceptions, delivering them and interrupts through the IDT; single step
 *   debugger.c  what a debugger outside the guest asks for: steps, breakpoints, watchpoints
 *   task.c      task-state segments: stacks of inner levels, task switches
 *   vector*.c   SIMD and x87 on the host's own unit, in generated stubs (vector_stub.c); masked moves and XSAVE in C
 *
 * A handler runs one instruction: void op(struct interp *c, const struct insn *in). RIP is that of its block plus in->off until
 * the instruction is complete. It faults by interp_raise(), which does not return: so it commits registers and flags after its last
 * access that may fault, and holds no resource across one.
 */
#ifndef ENGINE_INTERP_INTERP_H
#define ENGINE_INTERP_INTERP_H

#include <setjmp.h>

#include "engine/engine.h"
#include "engine/interp/tlb.h"

struct interp;
struct insn;
struct x86_insn;

typedef void (*interp_fn)(struct interp *c, const struct insn *in);

/*
 * A decoded instruction, ready to run. Registers are byte offsets into struct interp (AH is RAX's offset + 1), so that a
 * missing base, index or segment is just the offset of `zero`, and RIP-relative addresses use that of `block_rip`.
 */
struct insn {
    interp_fn fn;
    uint64_t imm;                   /* sign- or zero-extended as the instruction wants it; branch displacement */
    int64_t disp;                   /* address displacement; for RIP-relative forms relative to the block's start */
    uint16_t reg;                   /* ModRM.reg or opcode register: the first register operand */
    uint16_t rm;                    /* ModRM.rm where it is a register: the second */
    uint16_t vvvv;                  /* the third */
    uint16_t base, index, seg_base; /* of the memory operand; seg_base is `zero` in flat 64-bit addressing */
    uint16_t off;                   /* from the block's start */
    uint8_t scale;                  /* shift: 0 to 3 */
    uint8_t seg;                    /* enum x86_segreg of the memory operand */
    uint8_t addr;                   /* address size: 2, 4 or 8 bytes */
    uint8_t size;                   /* operand size in bytes */
    uint8_t len;                    /* of the encoding */
    uint8_t prefix;                 /* INSN_ bits */
    uint16_t mnemonic;              /* ZydisMnemonic */
    const void *extra;              /* a handler's own: vector.c's stub */
};

enum {
    INSN_LOCK = 1 << 0,
    INSN_REP = 1 << 1,
    INSN_REPNE = 1 << 2,
    INSN_SLOW_ADDR = 1 << 3 /* not flat 64-bit: seg.c checks limits */
};

/* Who accesses: chooses the TLB, and so the permissions (SDM Vol. 3A 4.6). */
enum mmu_index {
    MMU_KERNEL,      /* CPL < 3, SMAP does not apply (AC set, or off) */
    MMU_KERNEL_SMAP, /* CPL < 3, explicit access with SMAP in force */
    MMU_USER,        /* CPL 3 */
    MMU_USER_ALIGN,  /* CPL 3 with alignment checks in force: its TLB stays empty */
    MMU_N
};

#define MMU_SPACES 8 /* address spaces (PCIDs) whose translations are kept */

struct code_block;
struct code_cache;  /* code.c */
struct vector_unit; /* vector.h */

/* What an engine that embeds a struct interp, and caches more than it, wants to be told. On the vCPU's thread. */
struct interp_hooks {
    /* All translations are gone, in all address spaces. */
    void (*tlb_flushed)(struct interp *c);
    /* Those of address space `space` are (0 to MMU_SPACES - 1), but for those of global pages. */
    void (*tlb_space_flushed)(struct interp *c, unsigned space);
    /* c->space is another one. */
    void (*tlb_space_switched)(struct interp *c);
    /* Those of the page at lin; with maybe_large, it may have been a large one: up to the GiB around. */
    void (*tlb_page_flushed)(struct interp *c, uint64_t lin, bool maybe_large);
    /* c->x87_away is set and c->st.fx wanted: its x87 part must be there, and with `change` nowhere else. */
    void (*x87_wanted)(struct interp *c, bool change);
    /* From any thread: c->code_request is set. */
    void (*requested)(struct interp *c);
    /* It stops at a debugger's breakpoints by itself: see debugger.h. */
    bool breaks;
};

struct interp {
    struct x86_state st; /* st.rip is current between blocks and at faults; inside a block RIP is block_rip + in->off */
    uint64_t zero;       /* always 0 */
    uint64_t block_rip;  /* RIP (not linear) of the current block's first instruction */
    const struct insn *cur;

    /* Control: anything non-zero in `attention` leaves the chain of blocks at its next boundary. */
    uint32_t attention; /* ATTN_ bits; this thread only. Other threads raise port->pending */
    enum mmu_index mmu; /* from CPL, CR4.SMAP and EFLAGS.AC; mmu_mode_changed() keeps it */
    uint8_t code_size;  /* 2, 4 or 8: from CS and EFER */
    uint64_t stop_at;   /* instruction count for the caller's limit */
    bool one_block;     /* the limit is ENGINE_ONE_BLOCK: stop_at is behind one instruction, and blocks run whole */
    uint64_t n_insn;
    uint64_t paused_at; /* n_insn at the last PAUSE */
    uint32_t n_pauses;  /* in a row */

    struct tlb *tlb[MMU_N];           /* in use now; MMU_KERNEL_SMAP's is always tlb_smap */
    struct tlb_entry tlb_code[2][64]; /* fetches: supervisor, user; `read` is the tag */
    uint64_t tlb_code_large;          /* as struct tlb's `large` */
    unsigned space, next_space;       /* the current address space; whose place a new one takes */
    int space_pcid[MMU_SPACES];       /* or -1 */
    struct tlb tlb_smap;              /* supervisor pages under SMAP: mostly global ones, so that spaces share it */
    struct tlb tlb_kernel[MMU_SPACES], tlb_user[MMU_SPACES];
    struct tlb tlb_none; /* stays empty */

    struct code_cache *code;
    const struct code_block *block; /* current; its instructions before `end` run, and are in n_insn already */
    const struct insn *end;
    const uint8_t *writing; /* the current instruction writes here, where code may have been decoded from; or NULL */
    uint64_t writing_len;
    _Atomic bool running;       /* inside run(): obeys code_mark()'s requests */
    _Atomic bool code_request;  /* from another vCPU: see code.h */
    _Atomic uint64_t code_seen; /* the last request obeyed */
    bool bus_locked;            /* holds the engine's bus lock */
    uint32_t pin_mask;          /* pins that matter in the current state */
    struct vector_unit *vector;
    bool x87_away; /* the x87 registers are not in st.fx but with the hooks' owner; FIP, FDP and FOP are in st.fx */
    const struct interp_hooks *hooks; /* or NULL */
    unsigned decode_max;              /* instructions to decode at once, up to CODE_BLOCK_INSNS */
    struct engine *engine;
    struct engine_vcpu_conf conf;

    /* A raised exception on its way to delivery. */
    jmp_buf unwind;
    struct {
        uint8_t vector;
        bool has_error;
        uint32_t error;
        uint64_t cr2; /* #PF */
        uint64_t dr6; /* #DB: bits to set */
    } fault;
    uint32_t fault_ext; /* EXT bit for selector error codes while an event is delivered (SDM Vol. 3A 6.13) */
    uint32_t debug_hit; /* DR6 bits of data and I/O breakpoints met, due after the instruction */
    struct {
        struct engine_debug *want;           /* NULL: no debugger */
        bool slows;                          /* it asks for ATTN_STEP */
        const struct engine_breakpoint *met; /* watched and accessed by the current instruction, or the one just done */
        bool moved;                          /* an instruction or an event has been completed since debugger_set() */
    } debugger;
    bool step_tf, step_rf, step_sti, step_movss; /* flags and shadows as the instruction began; fault_step_begin() */
    enum engine_exit exit;                       /* what run() returns, with ATTN_EXIT */
    uint32_t bus_count;                          /* accesses to devices so far, to sample the time they take */
};

enum {
    ATTN_STEP = 1 << 0,    /* TF, a shadow, a breakpoint or a debugger: run one instruction at a time */
    ATTN_RECHECK = 1 << 1, /* IF, TPR or a mode changed: look at the pins again */
    ATTN_EXIT = 1 << 2,    /* leave run() with `exit` */
};

/* Counts a way out of the guest's instructions, and tells whoever traces it; `detail` as in struct engine_trace. */
void interp_exit(struct interp *c, enum engine_exit_reason reason, uint64_t detail);

/* ---- fault.c ---- */

_Noreturn void interp_raise(struct interp *c, enum x86_vector vector);
_Noreturn void interp_raise_error(struct interp *c, enum x86_vector vector, uint32_t error);
_Noreturn void interp_raise_page_fault(struct interp *c, uint64_t lin, uint32_t error);
_Noreturn void interp_raise_debug(struct interp *c, uint64_t dr6);

static inline uint64_t interp_rip(const struct interp *c, const struct insn *in)
{
    return c->block_rip + in->off;
}

static inline uint64_t interp_next_rip(const struct interp *c, const struct insn *in)
{
    return c->block_rip + in->off + in->len;
}

/* The linear address of the instruction at c->st.rip. */
static inline uint64_t interp_linear_rip(const struct interp *c)
{
    return c->code_size == 8 ? c->st.rip : (uint32_t)(c->st.seg[X86_CS].base + c->st.rip);
}

/* The instruction that comes next has begun: run() with ENGINE_ONE_BLOCK does not stop before it is complete. */
static inline void interp_not_here(struct interp *c)
{
    if (UNLIKELY(c->one_block))
        c->stop_at = c->n_insn + 1;
}

/* ---- registers by offset ---- */

#define INTERP_ZERO      ((uint16_t)offsetof(struct interp, zero))
#define INTERP_BLOCK_RIP ((uint16_t)offsetof(struct interp, block_rip))
#define INTERP_GPR(n)    ((uint16_t)(offsetof(struct interp, st.gpr) + 8 * (n)))

static inline void *interp_reg(struct interp *c, unsigned off)
{
    return (char *)c + off;
}

#endif
