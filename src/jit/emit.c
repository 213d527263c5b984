/* See emit.h. Encodings: SDM Vol. 2A chapter 2. */
#include "jit/emit.h"

void emit_init(struct emit *e, uint8_t *write, size_t len, const uint8_t *exec)
{
    *e = (struct emit){.start = write, .p = write, .end = write + len, .exec = exec - write};
}

void emit_bytes(struct emit *e, const void *bytes, size_t n)
{
    if ((size_t)(e->end - e->p) < n) {
        e->full = true;
        return;
    }
    memcpy(e->p, bytes, n);
    e->p += n;
}

void emit8(struct emit *e, uint8_t v)
{
    emit_bytes(e, &v, 1);
}

void emit16(struct emit *e, uint16_t v)
{
    uint8_t b[2];
    store_le16(b, v);
    emit_bytes(e, b, sizeof(b));
}

void emit32(struct emit *e, uint32_t v)
{
    uint8_t b[4];
    store_le32(b, v);
    emit_bytes(e, b, sizeof(b));
}

void emit64(struct emit *e, uint64_t v)
{
    uint8_t b[8];
    store_le64(b, v);
    emit_bytes(e, b, sizeof(b));
}

static void put_rex(struct emit *e, bool w, bool r, bool x, bool b)
{
    uint8_t rex = (uint8_t)(0x40 | w << 3 | r << 2 | x << 1 | b);
    if (rex != 0x40)
        emit8(e, rex);
}

static void put_opcode(struct emit *e, unsigned op)
{
    if (op > 0xff)
        emit8(e, 0x0f);
    emit8(e, (uint8_t)op);
}

void emit_rr(struct emit *e, enum emit_width w, unsigned op, unsigned reg, unsigned rm)
{
    put_rex(e, w == EMIT_64, reg & 8, false, rm & 8);
    put_opcode(e, op);
    emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_mem(struct emit *e, enum emit_width w, unsigned op, unsigned reg, unsigned base, unsigned index,
              unsigned scale, int32_t disp)
{
    bool has_base = base != EMIT_NONE, has_index = index != EMIT_NONE;
    bool short_disp = disp == (int8_t)disp;
    bool no_disp = !disp && (base & 7) != EMIT_RBP;
    uint8_t mod = !has_base || no_disp ? 0 : short_disp ? 0x40 : 0x80;

    put_rex(e, w == EMIT_64, reg & 8, has_index && (index & 8), has_base && (base & 8));
    put_opcode(e, op);
    if (!has_base || has_index || (base & 7) == EMIT_RSP) {
        emit8(e, (uint8_t)(mod | (reg & 7) << 3 | 4));
        emit8(e, (uint8_t)(scale << 6 | (has_index ? index & 7 : 4) << 3 | (has_base ? base & 7 : 5)));
    } else {
        emit8(e, (uint8_t)(mod | (reg & 7) << 3 | (base & 7)));
    }
    if (!has_base || mod == 0x80)
        emit32(e, (uint32_t)disp);
    else if (mod == 0x40)
        emit8(e, (uint8_t)disp);
}

void emit_mem_disp32(struct emit *e, enum emit_width w, unsigned op, unsigned reg, unsigned base, int32_t disp)
{
    put_rex(e, w == EMIT_64, reg & 8, false, base & 8);
    put_opcode(e, op);
    emit8(e, (uint8_t)(0x80 | (reg & 7) << 3 | (base & 7)));
    if ((base & 7) == EMIT_RSP)
        emit8(e, 0x24);
    emit32(e, (uint32_t)disp);
}

void emit_abs(struct emit *e, enum emit_width w, unsigned op, unsigned reg, uint32_t addr)
{
    emit_mem(e, w, op, reg, EMIT_NONE, EMIT_NONE, 0, (int32_t)addr);
}

void emit_mov_imm(struct emit *e, unsigned reg, uint64_t v)
{
    if (v == (uint32_t)v) {
        put_rex(e, false, false, false, reg & 8);
        emit8(e, (uint8_t)(0xb8 | (reg & 7)));
        emit32(e, (uint32_t)v);
    } else if (v == (uint64_t)(int32_t)v) {
        put_rex(e, true, false, false, reg & 8);
        EMIT(e, 0xc7, (uint8_t)(0xc0 | (reg & 7)));
        emit32(e, (uint32_t)v);
    } else {
        put_rex(e, true, false, false, reg & 8);
        emit8(e, (uint8_t)(0xb8 | (reg & 7)));
        emit64(e, v);
        e->n_wide++;
    }
}

void emit_alu_imm(struct emit *e, enum emit_width w, unsigned n, unsigned reg, uint32_t imm)
{
    put_rex(e, w == EMIT_64, false, false, reg & 8);
    EMIT(e, 0x81, (uint8_t)(0xc0 | n << 3 | (reg & 7)));
    emit32(e, imm);
}

void emit_shr(struct emit *e, enum emit_width w, unsigned reg, uint8_t n)
{
    put_rex(e, w == EMIT_64, false, false, reg & 8);
    EMIT(e, 0xc1, (uint8_t)(0xe8 | (reg & 7)), n);
}

static void note_far(struct emit *e, const uint8_t *at, const uint8_t *target)
{
    if (target >= e->start + e->exec && target <= e->end + e->exec)
        return;
    if (e->n_far < EMIT_FARS)
        e->far[e->n_far] = (uint16_t)(at - e->start);
    e->n_far++;
}

static void put_displacement(struct emit *e, const uint8_t *target)
{
    note_far(e, e->p, target);
    emit32(e, (uint32_t)(target - (emit_here(e) + 4)));
}

void emit_jmp(struct emit *e, const uint8_t *target)
{
    emit8(e, 0xe9);
    put_displacement(e, target);
}

void emit_jcc(struct emit *e, unsigned cc, const uint8_t *target)
{
    EMIT(e, 0x0f, (uint8_t)(0x80 | cc));
    put_displacement(e, target);
}

uint8_t *emit_jmp_later(struct emit *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->p - 4;
}

uint8_t *emit_jcc_later(struct emit *e, unsigned cc)
{
    EMIT(e, 0x0f, (uint8_t)(0x80 | cc));
    emit32(e, 0);
    return e->p - 4;
}

void emit_patch(struct emit *e, uint8_t *at, const uint8_t *target)
{
    if (e->full)
        return;
    note_far(e, at, target);
    store_le32(at, (uint32_t)(target - (at + e->exec + 4)));
}

void emit_align(struct emit *e, unsigned align)
{
    static const uint8_t nop[][9] = {
        {0x90},
        {0x66, 0x90},
        {0x0f, 0x1f, 0x00},
        {0x0f, 0x1f, 0x40, 0x00},
        {0x0f, 0x1f, 0x44, 0x00, 0x00},
        {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
        {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
        {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
        {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
    };

    while (!e->full && (uintptr_t)emit_here(e) % align) {
        size_t left = align - (uintptr_t)emit_here(e) % align;
        size_t n = left < ARRAY_SIZE(nop) ? left : ARRAY_SIZE(nop);
        emit_bytes(e, nop[n - 1], n);
    }
}
