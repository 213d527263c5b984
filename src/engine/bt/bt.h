/*
 * The translator's inside: one vCPU of it, and what its stages offer one another.
 *
 *   bt.c         engine_type: open, run loop, get and set
 *   mode.c       what a translation depends on besides its bytes and address
 *   cache.c      translated blocks: finding and making
 *   segment.c    room for them, and eviction
 *   heat.c       which code is worth it while that room is too small
 *   move.c       a block's code once more, at another linear address
 *   link.c       direct jumps between them
 *   page.c       invalidation: blocks whose bytes change
 *   jump.c       the jump caches, through which indirect and far-off jumps find their blocks
 *   thunk.c      generated code between C and the guest: enter, leave
 *   translate.c  from guest bytes to a block: decodes, decides for each instruction how it is translated
 *   flags.c      which status flags somebody may still see, and keeping them over code that needs EFLAGS
 *   group.c      memory operands that share one check
 *   memory.c     memory operands: the inline lookup in the software TLB
 *   recode.c     instructions that run as they are, with registers and memory operands put in place
 *   simd.c       which SIMD instructions are among those, and what they ask for
 *   x87.c        x87 and MMX: when their registers are the host's, and what is particular about their instructions
 *   trap.c       exceptions of the host's CPU in generated code
 *   bug.c        what is said when the translator is found to be wrong
 *   pushpop.c      PUSH, POP and their kin
 *   system.c     what a kernel does all the time: flags and their images on the stack, segment bases, control registers
 *   entry.c      SYSCALL, SYSRET, IRET and others that change the mode; string moves, RDTSC
 *   light.c      light calls: C for the usual case of those; tsc.c: one that needs more of C
 *   flow.c       jumps, calls, returns, and the ends of blocks
 *
 * The guest's instruction set is the host's, so the guest's registers are the host's: each general register lives in the one of its own
 * number, but R10 and R11, which live in memory (`c.st.gpr`) and leave the host's to generated code. Vector registers and MXCSR live in the
 * host's, the status flags in EFLAGS or, as LAHF and SETO give them, in `flags`. All else is in the embedded interpreter's state, which is also
 * the slow path: whatever the fast path cannot do (a TLB miss, a fault, a device, an instruction that is not translated), one
 * instruction is interpreted, and translated code goes on behind it. So there is one implementation of what an instruction means.
 *
 * At each instruction's start the guest's state is complete: registers as above, flags in EFLAGS or in `flags` (the translator knows where).
 * No table for precise exceptions is needed.
 *
 * struct bt lies below 2 GiB, so that generated code reaches it by absolute addresses and needs no register for it.
 */
#ifndef ENGINE_BT_BT_H
#define ENGINE_BT_BT_H

#include "engine/interp/interp_engine.h"
#include "jit/arena.h"
#include "jit/emit.h"

/* The registers that generated code has for itself; the guest's of the same numbers live in memory. */
#define BT_T0 EMIT_R10
#define BT_T1 EMIT_R11

/*
 * What a translation depends on: the code size, segments (flat or not), privilege, who accesses memory, the direction flag, which
 * register files may be used. As bits, so that it is part of a block's key.
 */
#define BT_MODE_64        (1u << 0) /* else 32-bit protected or compatibility mode */
#define BT_MODE_MMU       (3u << 1) /* enum mmu_index */
#define BT_MODE_MMU_SHIFT 1
#define BT_MODE_CPL_SHIFT 3
#define BT_MODE_CPL       (3u << BT_MODE_CPL_SHIFT)
#define BT_MODE_DF        (1u << 5)
#define BT_MODE_X87       (1u << 6) /* CR0.EM and TS clear */
#define BT_MODE_SSE       (1u << 7)
#define BT_MODE_AVX       (1u << 8)
#define BT_MODE_COUNTED   (1u << 9) /* each block leaves to C, which counts instructions: runs with a limit */
#define BT_N_MODES        (1u << 10)
#define BT_MODE_NONE      UINT32_MAX /* such code is interpreted */

/* Why generated code came back to C. */
enum bt_leave {
    BT_LEAVE_NONE,
    BT_LEAVE_UNTRANSLATED, /* interpret the instruction at arg1 (RIP), then go on at host address arg0 */
    BT_LEAVE_SLOW,         /* the same for one whose fast path does not do this time */
    BT_LEAVE_UNTRANSLATED_X87,
    BT_LEAVE_SLOW_X87, /* as those two, and the x87 registers are the host's when generated code goes on */
    BT_LEAVE_MISS,     /* an indirect jump to RIP arg0 found nothing in the jump cache */
    BT_LEAVE_LINK,     /* a direct jump that has no target yet: arg0 is its struct bt_link's number */
    BT_LEAVE_POLL,     /* something is due before the instruction at RIP arg0 */
    BT_LEAVE_TRAP,     /* a host exception that no guest instruction accounts for: bt->trap */
};

/* How generated code is left: jumps to these, with arg0 in T0 and arg1 in T1. The flags are in `flags`. */
struct bt_thunks {
    void (*enter)(void);                      /* from C: runs guest code at bt->target until it leaves */
    const uint8_t *untranslated[2], *slow[2]; /* [1]: the x87 registers are wanted in the host's afterwards */
    const uint8_t *miss, *link, *poll, *trap;
    /* Light calls (light.h): with the ways out of them in arg0 and arg1. */
    const uint8_t *light_syscall, *light_sysret, *light_iret, *light_string, *light_tsc;
    const uint8_t *light_access; /* with the linear address in T0 and the struct light_access in T1 */
    const uint8_t *end;          /* behind the last one */
};

struct bt_cache; /* cache.c */
struct bt_jump;  /* jump.c */

struct bt_stats {
    uint64_t count[ENGINE_N_TRANSLATOR];                                    /* TLB_LOOKUPS and on: by generated code */
    uint64_t mnemonics[ENGINE_N_INTERPRETED][ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* of the slow ones */
};

#define BT_SOLO 4096
#define BT_GROUP_ENDS \
    (1u << 31) /* the last of the group ends the block: there is nothing to go on with, arg0 just lies in the block */

struct bt {
    struct interp c;

    /* For generated code. */
    uint64_t jump_base8;                 /* current jump cache's address / 8; its low 16 bits are 0 */
    uint64_t jump_bases[BT_N_MODES];     /* the same for each mode, in the current address space; 0: it has none yet */
    uint64_t indirect_rip, indirect_rsp; /* of the last indirect jump or return as it began, for those to nowhere */
    uint64_t call_target;                /* of the indirect call at hand */
    uint64_t scratch;                    /* within one instruction */
    _Atomic uint32_t poll;               /* not 0: something is due; set from any thread */
    uint16_t flags;                      /* AH, AL as after LAHF and SETO AL */
    uint32_t leave;                      /* enum bt_leave */
    uint64_t arg0, arg1;
    uint32_t group; /* on the slow path: 0, or bytes of the group of instructions to interpret, and BT_GROUP_ENDS */
    bool group_straddles;      /* and whether its check failed since it crosses its page's end */
    const uint8_t *target;     /* where `enter` goes on */
    uint64_t light_arg;        /* of a light call */
    const uint8_t *light_next; /* where it leads */
    uint64_t host_rsp;
    uint32_t host_mxcsr;
    uint32_t new_mxcsr; /* being looked at by LDMXCSR */

    /* For C. */
    struct bt_thunks thunks;
    struct jit_arena arena;
    struct bt_cache *cache;
    struct bt_jump *jump;
    struct trans *trans;      /* translate.h: room for the block being translated */
    uint32_t mode;            /* of the code that runs; mode.c */
    struct bt_block *counted; /* the block that runs in counted mode */
    bool has_avx;             /* the host's vector registers are 256 bits wide */
    _Atomic bool in_guest;    /* bt->target is about to run, or generated code runs */
    pthread_t thread;         /* that runs it; valid with in_guest */
    bool thread_known;
    struct {
        int sig;
        uintptr_t pc, addr; /* host addresses: of the instruction, and what it accessed or 0 */
        uint64_t rflags;
    } trap;                     /* with BT_LEAVE_TRAP */
    bool failed;                /* bug.c: it does not run again */
    uint8_t solo[BT_SOLO];      /* by physical address of the instruction: its check is not to be shared */
    uint8_t straddles[BT_SOLO]; /* how often it failed since its range lies across two pages */
    bool dropped;               /* blocks were dropped since this was last cleared: host addresses in them are void */
    _Atomic bool pages_written; /* a page with blocks of this vCPU was; from any thread */
    struct bt_stats stats;
    struct bt_engine *engine;
};

struct bt_engine {
    struct engine engine;     /* first: what the embedded interpreters share */
    uint64_t vcpu_cache_size; /* bytes of generated code, each vCPU */
    bool profile;             /* generated code counts */
    struct bt **vcpus;
    _Atomic uint16_t *holders; /* for each page of RAM: vCPUs with blocks made from it, a bit each */
    uint64_t n_pages;
};

static inline struct bt *bt_of(struct interp *c)
{
    return (struct bt *)c;
}

/* RFLAGS' status flags as LAHF and SETO AL leave them in AX, which is what bt->flags holds; and RFLAGS with those of bt->flags. */
static inline uint16_t bt_pack_flags(uint64_t rflags)
{
    return (uint16_t)((rflags & 0xff) << 8 | (rflags >> 11 & 1));
}

static inline uint64_t bt_rflags(const struct bt *bt)
{
    uint64_t status = bt->flags >> 8 | (uint64_t)(bt->flags & 1) << 11;
    return (bt->c.st.rflags & ~(uint64_t)X86_FLAGS_STATUS) | (status & X86_FLAGS_STATUS);
}

/* The absolute address of a field, for generated code. */
#define BT_ABS(bt, field) ((uint32_t)(uintptr_t) & (bt)->field)

/* ---- thunk.c ---- */

/* Generates them at the arena's start. 0 or -ENOSPC. */
int thunk_open(struct bt *bt) MUST_CHECK;

/* Tells whoever traces code of them. */
void thunk_trace(const struct bt *bt);

/* The name of the one whose code holds the host address, or NULL. */
const char *thunk_name(const struct bt *bt, uintptr_t pc);

/* Runs guest code from bt->target until it leaves; bt->leave tells why. */
void thunk_run(struct bt *bt);

/* ---- mode.c ---- */

/* The mode of the state in bt->c. */
uint32_t mode_now(const struct bt *bt);

/* ---- cache.c ---- */

struct bt_link;

/* A host instruction that may raise an exception for the guest's. As offsets into the block's code. */
struct bt_trap {
    uint32_t at;   /* of the instruction */
    uint32_t stub; /* of its slow path */
};

struct bt_block {
    struct bt_block *next;         /* in its hash bucket */
    struct bt_block *page_next[2]; /* that begin on the same physical page; that end on the same second one */
    struct bt_block **page_prev[2];
    struct bt_link *incoming; /* direct jumps that lead here */
    struct bt_link *links;    /* those out of it, n_links of them */
    uint64_t rip, gpa;        /* linear and physical address of its first byte */
    uint64_t gpa2;            /* if it crosses: of the first byte of its second page */
    uint64_t page, page2;     /* as ram_page(): the pages it was made from */
    uint32_t mode;
    uint32_t n_links;
    uint16_t source_len;
    uint16_t n;             /* instructions */
    const uint8_t *source;  /* the bytes it was made from */
    const uint8_t *lengths; /* of its instructions */
    const struct bt_trap *traps;
    const uint16_t *relocs; /* translate.h: what changes with its linear address; NULL: it cannot be moved */
    uint16_t n_traps, n_relocs;
    uint16_t n_solo; /* instructions that bt->solo said something of when it was translated */
    bool crosses;    /* its only instruction ends on the next page */
    bool global;     /* its pages' mappings are */
    bool dead;       /* invalidated: may still run to its next exit, is found no more */
    bool unhooked;   /* its links lead to their stubs for once: see signal.c */
    const uint8_t *code, *code_end;
    const uint8_t *landing;    /* for jumps through the jump cache: RIP in T0, flags saved */
    const uint8_t *body_saved; /* flags in bt->flags */
    const uint8_t *body_live;  /* flags in EFLAGS */
};

/* A direct jump out of a block. */
struct bt_link {
    struct bt_link *next, **prev; /* of those that lead to the same block */
    struct bt_link *cross_next;
    struct bt_block *from, *to; /* `to` is NULL while the jump is not joined to a block */
    uint64_t rip;               /* its target */
    /* Offsets in the block's code. */
    uint32_t at;      /* its displacement, where it is written */
    uint32_t stub;    /* where it leads while it has no target: asks for one */
    uint32_t number;  /* where the stub has the link's number */
    uint32_t through; /* or when it cannot have one: jumps through the jump cache; 0 where there is none */
    uint16_t n;       /* instructions of its block up to it */
    bool live;        /* comes with the flags in EFLAGS */
    bool same_page;   /* as the block, or as its second page */
    bool from_global;
    bool in_cross; /* on the list through cross_next */
};

/* Takes the rest of bt->arena for code. */
int cache_open(struct bt *bt, struct err *err) MUST_CHECK;
void cache_close(struct bt *bt);

/*
 * The block for RIP in the current mode, translated if need be. Raises what fetching raises. NULL: this code is to be interpreted, up to the next
 * jump or a debugger's breakpoint at least; or there is such a breakpoint.
 */
struct bt_block *cache_find(struct bt *bt, uint64_t rip);

/* A new link of the block being translated, numbered for generated code; NULL when there is no room. */
struct bt_link *cache_new_link(struct bt *bt, struct bt_block *block, uint32_t *number);
struct bt_link *cache_link(struct bt *bt, uint32_t number);

/* Whether a jump to this address may turn out to lead to an instruction that crosses into the next page. */
static inline bool cache_may_cross(uint64_t rip)
{
    return (rip & (RAM_PAGE_SIZE - 1)) > RAM_PAGE_SIZE - X86_INSN_MAX;
}

/* A debugger has set its breakpoints: blocks that have one in them are dropped. While the vCPU is not in run(). */
void cache_break(struct bt *bt);

/* Makes the jump lead straight to the block where that may be, else through the jump cache. */
void cache_join(struct bt *bt, struct bt_link *link, struct bt_block *to);

/* Mappings of kernel code have changed: jumps from page to page must find their targets anew. */
void cache_unlink_cross(struct bt *bt);

/* The block made last for linear address `rip`, in whatever mode, perhaps dead by now; or NULL. */
const struct bt_block *cache_newest(const struct bt *bt, uint64_t rip);

/* A copy that lives as long as the blocks; NULL when there is no room. */
uint8_t *cache_keep(struct bt *bt, const uint8_t *bytes, size_t len);

/* Makes all jumps out of the block lead to their stubs, and back. */
void cache_unhook(struct bt *bt, struct bt_block *block);
void cache_rehook(struct bt *bt, struct bt_block *block);

/* The block whose code holds the host address, or NULL. Async-signal-safe while generated code runs. */
struct bt_block *cache_at(struct bt *bt, uintptr_t pc);

/* From any thread: the page's code version has moved, for stores to these granules. */
void cache_page_written(struct bt *bt, uint64_t page, uint64_t granules);

/* Drops the blocks whose bytes have changed on pages noted so. */
void cache_check_pages(struct bt *bt);

/* ---- signal.c ---- */

/* Once a process; once a thread that runs vCPUs. */
int signal_open(struct err *err) MUST_CHECK;
int signal_thread(struct bt *bt) MUST_CHECK;
void signal_thread_done(void);

/* The vCPU that runs on this thread, or NULL. Async-signal-safe. */
struct bt *signal_running(void);

/* From any thread: makes generated code of bt leave soon. bt->poll is set. */
void signal_kick(struct bt *bt);

/* ---- x87.c ---- */

/* The guest's x87 registers into the host's. They stay there until the interpreter wants them (vector_x87_fetch()). */
void x87_load(struct bt *bt);

/* And back: as struct interp_hooks. */
void x87_save(struct interp *c, bool change);

/* ---- trap.c ---- */

/* Once a process: handlers of SIGFPE, SIGSEGV, SIGBUS, SIGILL and SIGTRAP. */
int trap_open(struct err *err) MUST_CHECK;

/* What BT_LEAVE_TRAP is about, in a few words. */
void trap_describe(const struct bt *bt, char *text, size_t room);

/* ---- bug.c: from within run() alone, which they leave with ENGINE_FAIL ---- */

/* BT_LEAVE_TRAP: logs what happened, the guest's registers, the block on both sides, and how to report it. */
_Noreturn void bug_trapped(struct bt *bt);

/* The same for what C finds that cannot be; `block`: that it has to do with, or NULL. */
_Noreturn void bug_found(struct bt *bt, const struct bt_block *block, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ---- jump.c ---- */

int jump_open(struct bt *bt, struct err *err) MUST_CHECK;
void jump_close(struct bt *bt);

/* Makes the jump cache of bt->mode the current one. */
void jump_select(struct bt *bt);

/* Sees to it that bt->jump_bases[mode] stays an address. false: there are too many modes. */
bool jump_reserve(struct bt *bt, uint32_t mode);

/* Remembers a block of the current mode. */
void jump_enter(struct bt *bt, const struct bt_block *block);

/* Forgets a block, in all modes. */
void jump_forget(struct bt *bt, const struct bt_block *block);

/* Translations were flushed, or another address space is current: as struct interp_hooks. */
void jump_flush(struct bt *bt);
void jump_flush_space(struct bt *bt, unsigned space);
void jump_switch_space(struct bt *bt);
void jump_flush_page(struct bt *bt, uint64_t lin, bool maybe_large);

#endif
