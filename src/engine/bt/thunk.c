/*
 * The code between C and the guest, generated once a vCPU since it names the vCPU's state by absolute addresses.
 *
 * Entering saves what C expects to be preserved, takes the guest's registers and jumps to bt->target. Leaving stores the two arguments and
 * the reason, then the guest's registers, and returns from the entering call. The stack pointer is the guest's in between: nothing is
 * pushed, and signal handlers run on a stack of their own.
 */
#include "engine/bt/light.h"

#include <errno.h>

#define THUNK_ROOM 4096

static const uint8_t preserved[] = {EMIT_RBX, EMIT_RBP, EMIT_R12, EMIT_R13, EMIT_R14, EMIT_R15};

static bool in_register(unsigned gpr)
{
    return gpr != BT_T0 && gpr != BT_T1;
}

static void put_push(struct emit *e, unsigned reg)
{
    if (reg & 8)
        emit8(e, 0x41);
    emit8(e, (uint8_t)(0x50 | (reg & 7)));
}

static void put_pop(struct emit *e, unsigned reg)
{
    if (reg & 8)
        emit8(e, 0x41);
    emit8(e, (uint8_t)(0x58 | (reg & 7)));
}

enum { LOAD = 0x10, STORE = 0x11 }; /* opcodes of (V)MOVUPS */

static void put_vectors(struct emit *e, const struct bt *bt, uint8_t opcode)
{
    for (unsigned r = 0; r < 16; r++) {
        if (bt->has_avx)
            EMIT(e, 0xc5, (uint8_t)((r < 8) << 7 | 0x7c), opcode);
        else if (r >= 8)
            EMIT(e, 0x44, 0x0f, opcode);
        else
            EMIT(e, 0x0f, opcode);
        EMIT(e, (uint8_t)(0x04 | (r & 7) << 3), 0x25);
        emit32(e, BT_ABS(bt, c.st.ymm[r]));
    }
}

/* LDMXCSR (2) or STMXCSR (3). */
static void put_mxcsr(struct emit *e, unsigned n, uint32_t addr)
{
    EMIT(e, 0x0f, 0xae, (uint8_t)(0x04 | n << 3), 0x25);
    emit32(e, addr);
}

static void put_enter(struct emit *e, const struct bt *bt)
{
    for (unsigned i = 0; i < ARRAY_SIZE(preserved); i++)
        put_push(e, preserved[i]);
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, EMIT_RSP, BT_ABS(bt, host_rsp));
    put_mxcsr(e, 2, BT_ABS(bt, c.st.fx.mxcsr));
    put_vectors(e, bt, LOAD);
    /* OF from AL being 0 or 1, the others from AH. */
    emit_abs(e, EMIT_32, EMIT_MOVZX16, EMIT_RAX, BT_ABS(bt, flags));
    EMIT(e, 0x3c, 0x81, 0x9e); /* cmp al, -127; sahf */
    for (unsigned r = 0; r < X86_N_GPR; r++)
        if (in_register(r))
            emit_abs(e, EMIT_64, EMIT_MOV_LOAD, r, BT_ABS(bt, c.st.gpr[r]));
    emit_abs(e, EMIT_32, 0xff, 4, BT_ABS(bt, target)); /* jmp [target] */
}

static const uint8_t *put_leave(struct emit *e, const struct bt *bt, enum bt_leave reason)
{
    const uint8_t *at = emit_here(e);

    emit_abs(e, EMIT_32, 0xc7, 0, BT_ABS(bt, leave));
    emit32(e, reason);
    return at;
}

static void put_return(struct emit *e, const struct bt *bt)
{
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(bt, arg0));
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T1, BT_ABS(bt, arg1));
    for (unsigned r = 0; r < X86_N_GPR; r++)
        if (in_register(r))
            emit_abs(e, EMIT_64, EMIT_MOV_STORE, r, BT_ABS(bt, c.st.gpr[r]));
    put_vectors(e, bt, STORE);
    if (bt->has_avx)
        EMIT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    put_mxcsr(e, 3, BT_ABS(bt, c.st.fx.mxcsr));
    put_mxcsr(e, 2, BT_ABS(bt, host_mxcsr));
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, EMIT_RSP, BT_ABS(bt, host_rsp));
    for (unsigned i = ARRAY_SIZE(preserved); i-- > 0;)
        put_pop(e, preserved[i]);
    emit8(e, 0xc3);
}

/* ---- light calls ---- */

/*
 * Light C is compiled without vector registers and calls nobody. But where sanitizers are in it, or without optimization, the compiler has it call
 * memcpy() and the like, whose own code is not.
 */
#ifdef __has_feature
#define SANITIZED __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#ifdef __OPTIMIZE__
#define LIGHT_C_CALLS SANITIZED
#else
#define LIGHT_C_CALLS 1
#endif

static const uint8_t volatile_gprs[] = {EMIT_RAX, EMIT_RCX, EMIT_RDX, EMIT_RSI, EMIT_RDI, EMIT_R8, EMIT_R9, EMIT_RSP};

static void put_gprs(struct emit *e, const struct bt *bt, enum emit_op op)
{
    for (unsigned i = 0; i < ARRAY_SIZE(volatile_gprs); i++)
        emit_abs(e, EMIT_64, op, volatile_gprs[i], BT_ABS(bt, c.st.gpr[volatile_gprs[i]]));
}

/* Saves what the function may change, calls it, and goes on where it says with arg0 in T0 and arg1 in T1. `vectors`: it may change them too. */
static const uint8_t *put_light(struct emit *e, const struct bt *bt, light_fn fn, bool vectors)
{
    const uint8_t *at = emit_here(e);

    put_gprs(e, bt, EMIT_MOV_STORE);
    vectors |= LIGHT_C_CALLS;
    if (vectors) {
        put_vectors(e, bt, STORE);
        if (bt->has_avx)
            EMIT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
        put_mxcsr(e, 3, BT_ABS(bt, c.st.fx.mxcsr));
        put_mxcsr(e, 2, BT_ABS(bt, host_mxcsr));
    }
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, EMIT_RSP, BT_ABS(bt, host_rsp));
    emit_mem(e, EMIT_64, EMIT_LEA, EMIT_RSP, EMIT_RSP, EMIT_NONE, 0, -8); /* as the ABI aligns it */
    emit_mov_imm(e, EMIT_RDI, (uintptr_t)bt);
    emit_mov_imm(e, EMIT_RAX, (uintptr_t)fn);
    EMIT(e, 0xff, 0xd0); /* call rax */
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, EMIT_RAX, BT_ABS(bt, light_next));
    if (vectors) {
        put_mxcsr(e, 2, BT_ABS(bt, c.st.fx.mxcsr));
        put_vectors(e, bt, LOAD);
    }
    put_gprs(e, bt, EMIT_MOV_LOAD);
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(bt, arg0));
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_ABS(bt, arg1));
    emit_abs(e, EMIT_32, 0xff, 4, BT_ABS(bt, light_next)); /* jmp [light_next] */
    return at;
}

/* The same for light_access(), which may want any register to store it. */
static const uint8_t *put_access(struct emit *e, const struct bt *bt)
{
    const uint8_t *at = emit_here(e);

    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T1, BT_ABS(bt, arg0));
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(bt, light_arg));
    for (unsigned i = 0; i < ARRAY_SIZE(preserved); i++)
        emit_abs(e, EMIT_64, EMIT_MOV_STORE, preserved[i], BT_ABS(bt, c.st.gpr[preserved[i]]));
    put_light(e, bt, light_access, false);
    return at;
}

int thunk_open(struct bt *bt)
{
    uint8_t *room = jit_arena_alloc(&bt->arena, THUNK_ROOM);
    struct bt_thunks *th = &bt->thunks;
    const uint8_t **leaves[] = {&th->untranslated[0],
                                &th->slow[0],
                                &th->untranslated[1],
                                &th->slow[1],
                                &th->miss,
                                &th->link,
                                &th->poll,
                                &th->trap};
    uint8_t *jumps[ARRAY_SIZE(leaves)];
    struct emit e;

    if (!room)
        return -ENOSPC;
    emit_init(&e, room, THUNK_ROOM, jit_arena_exec(&bt->arena, room));
    const uint8_t *enter = emit_here(&e);
    put_enter(&e, bt);
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
        *leaves[i] = put_leave(&e, bt, BT_LEAVE_UNTRANSLATED + i);
        jumps[i] = emit_jmp_later(&e);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
        emit_patch(&e, jumps[i], emit_here(&e));
    put_return(&e, bt);
    bt->thunks.light_syscall = put_light(&e, bt, light_syscall, false);
    bt->thunks.light_sysret = put_light(&e, bt, light_sysret, false);
    bt->thunks.light_iret = put_light(&e, bt, light_iret, false);
    bt->thunks.light_string = put_light(&e, bt, light_string, false);
    bt->thunks.light_tsc = put_light(&e, bt, light_tsc, true);
    bt->thunks.light_access = put_access(&e, bt);
    if (e.full)
        return -ENOSPC;
    bt->thunks.end = emit_here(&e);
    memcpy(&bt->thunks.enter, &enter, sizeof(enter));
    jit_arena_trim(&bt->arena, room, (size_t)(e.p - e.start));
    return 0;
}

#define N_THUNKS 8

struct thunk {
    const char *name;
    const uint8_t *at;
};

/* In their order; behind the last one, where they end. */
static void list(const struct bt *bt, struct thunk thunks[N_THUNKS + 1])
{
    const struct bt_thunks *th = &bt->thunks;
    const uint8_t *enter;

    memcpy(&enter, &th->enter, sizeof(enter));
    const struct thunk all[] = {
        {"enter", enter},
        {"leave", th->untranslated[0]},
        {"syscall", th->light_syscall},
        {"sysret", th->light_sysret},
        {"iret", th->light_iret},
        {"string", th->light_string},
        {"rdtsc", th->light_tsc},
        {"access", th->light_access},
        {NULL, th->end},
    };
    _Static_assert(ARRAY_SIZE(all) == N_THUNKS + 1, "all of them");
    memcpy(thunks, all, sizeof(all));
}

void thunk_trace(const struct bt *bt)
{
    struct thunk thunks[N_THUNKS + 1];

    list(bt, thunks);
    for (unsigned i = 0; i < N_THUNKS; i++) {
        const struct engine_code code = {.vcpu = bt->c.conf.index,
                                         .name = thunks[i].name,
                                         .host = thunks[i].at,
                                         .host_len = (size_t)(thunks[i + 1].at - thunks[i].at)};
        interp_trace_code(&bt->c, &code);
    }
}

const char *thunk_name(const struct bt *bt, uintptr_t pc)
{
    struct thunk thunks[N_THUNKS + 1];

    list(bt, thunks);
    for (unsigned i = 0; i < N_THUNKS; i++)
        if (pc >= (uintptr_t)thunks[i].at && pc < (uintptr_t)thunks[i + 1].at)
            return thunks[i].name;
    return NULL;
}

void thunk_run(struct bt *bt)
{
    bt->flags = bt_pack_flags(bt->c.st.rflags);
    bt->thunks.enter();
    bt->c.st.rflags = bt_rflags(bt);
}
