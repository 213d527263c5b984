/* See code.h. */
#include "engine/interp/code.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/interp/interp_engine.h"
#include "engine/interp/mmu.h"

/* All vCPUs' arenas together, and what one may have of that at most and at least. A full one is flushed. */
#define ARENA_TOTAL (20 * MIB)
#define ARENA_MOST  (12 * MIB)
#define ARENA_LEAST (1280 * KIB)
#define N_BUCKETS   16384
#define CODE_REAL   0x10 /* in code_block.mode */
#define SRC_MAX     (CODE_BLOCK_INSNS * X86_INSN_MAX)
#define BLOCK_MAX   (sizeof(struct code_block) + CODE_BLOCK_INSNS * sizeof(struct insn) + SRC_MAX + 16)
#define PAGE_OFFSET (RAM_PAGE_SIZE - 1)

#define MARKS_MAX 5u

struct code_cache {
    uint8_t *arena;
    size_t size;
    size_t used;
    uint64_t flushes;
    struct code_block *buckets[N_BUCKETS];
    union { /* for code that is not to be kept */
        struct code_block scratch;
        uint8_t scratch_room[sizeof(struct code_block) + sizeof(struct insn)];
    };
};

int code_open(struct interp *c)
{
    struct code_cache *cache = calloc(1, sizeof(*cache));

    if (!cache)
        return -ENOMEM;
    cache->size = ARENA_TOTAL / c->engine->n_vcpus;
    cache->size = cache->size > ARENA_MOST ? ARENA_MOST : cache->size < ARENA_LEAST ? ARENA_LEAST : cache->size;
    cache->arena = mmap(NULL, cache->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->arena == MAP_FAILED) {
        free(cache);
        return -ENOMEM;
    }
    c->code = cache;
    return 0;
}

void code_close(struct interp *c)
{
    munmap(c->code->arena, c->code->size);
    free(c->code);
    c->code = NULL;
}

void code_flush(struct interp *c)
{
    memset(c->code->buckets, 0, sizeof(c->code->buckets));
    c->code->used = 0;
    c->code->flushes++;
}

static struct code_block **bucket(struct code_cache *cache, uint64_t gpa, uint8_t mode)
{
    return &cache->buckets[((gpa ^ mode) * UINT64_C(0x9e3779b97f4a7c15)) >> 50];
}

static uint8_t current_mode(const struct interp *c)
{
    bool real = c->code_size != 8 && (!(c->st.cr0 & X86_CR0_PE) || (c->st.rflags & X86_FLAG_VM));
    return (uint8_t)(c->code_size | (real ? CODE_REAL : 0));
}

/* Bytes that the code segment's limit lets one fetch from RIP on. */
static uint64_t limit_left(const struct interp *c)
{
    uint64_t limit = c->st.seg[X86_CS].limit;
    if (c->code_size == 8)
        return UINT64_MAX;
    return c->st.rip <= limit ? limit - c->st.rip + 1 : 0;
}

/* ---- requests between vCPUs ---- */

void code_answer(struct interp *c)
{
    struct engine *engine = c->engine;

    atomic_store(&c->code_request, false);
    uint64_t epoch = atomic_load(&engine->code_epoch);
    if (epoch == atomic_load(&c->code_seen))
        return;
    mmu_drop_write(c, engine->code_gpa);
    atomic_store(&c->code_seen, epoch);
}

void code_enter(struct interp *c)
{
    atomic_store(&c->running, true);
    uint64_t epoch = atomic_load(&c->engine->code_epoch);
    if (epoch == atomic_load(&c->code_seen))
        return;
    mmu_flush_all(c); /* it may have missed several requests */
    atomic_store(&c->code_seen, epoch);
}

void code_leave(struct interp *c)
{
    atomic_store(&c->running, false);
}

static void wait_for(struct interp *v, uint64_t epoch)
{
    for (unsigned spins = 0; atomic_load(&v->running) && atomic_load(&v->code_seen) != epoch; spins++) {
        if (spins < 1000)
            __builtin_ia32_pause();
        else
            sched_yield();
    }
}

void code_mark(struct interp *c, const uint8_t *host, uint64_t gpa)
{
    struct engine *engine = c->engine;
    _Atomic uint8_t *flags = &engine->ram->page_flags[ram_page(engine->ram, host)];

    if (LIKELY(atomic_load(flags) & RAM_PAGE_MARKED))
        return;
    while (pthread_mutex_trylock(&engine->code_lock) != 0) {
        code_answer(c);
        sched_yield();
    }
    code_answer(c);
    atomic_fetch_or(flags, RAM_PAGE_CODE);
    engine->code_gpa = align_down(gpa, RAM_PAGE_SIZE);
    uint64_t epoch = atomic_fetch_add(&engine->code_epoch, 1) + 1;
    for (unsigned i = 0; i < engine->n_vcpus; i++) {
        struct interp *other = engine->vcpus[i];
        if (!other || other == c)
            continue;
        atomic_store(&other->code_request, true);
        if (other->hooks)
            other->hooks->requested(other);
    }
    mmu_drop_write(c, gpa);
    atomic_store(&c->code_seen, epoch);
    for (unsigned i = 0; i < engine->n_vcpus; i++) {
        if (engine->vcpus[i] && engine->vcpus[i] != c)
            wait_for(engine->vcpus[i], epoch);
    }
    /* Only an unmarking changes flags without the lock, and there is none before MARKED is set. */
    uint8_t old = atomic_load(flags);
    uint8_t marks = old < MARKS_MAX * RAM_PAGE_MARKS ? RAM_PAGE_MARKS : 0;
    atomic_store(flags, (uint8_t)((old + marks) | RAM_PAGE_CODE | RAM_PAGE_MARKED));
    pthread_mutex_unlock(&engine->code_lock);
}

/* After a store to the page: is it data by now? Not while a block of it runs here, whose own stores must be seen. */
static void maybe_unmark(struct ram *ram, uint64_t page)
{
    uint8_t flags = atomic_load(&ram->page_flags[page]);

    if (!(flags & RAM_PAGE_MARKED) || !code_is_data(flags, atomic_load(&ram->code[page].stores)))
        return;
    /* Flags first: who takes the new version then finds that it must mark the page. If they have changed, another vCPU was here. */
    uint8_t clear = (uint8_t)(flags & ~(RAM_PAGE_CODE | RAM_PAGE_MARKED));
    if (atomic_compare_exchange_strong(&ram->page_flags[page], &flags, clear))
        ram_forget_code(ram, page);
}

/* ---- building ---- */

/* Where a block is made: its instructions' bytes, as far as they may be read. */
struct source {
    const uint8_t *bytes;
    size_t avail;
};

static void insn_raise(struct insn *in, interp_fn fn)
{
    uint16_t off = in->off;
    memset(in, 0, sizeof(*in));
    in->fn = fn;
    in->off = off;
    in->len = 1;
    in->base = in->index = in->seg_base = INTERP_ZERO;
}

static enum x86_decode decode_one(struct interp *c, struct insn *in, uint8_t mode, const uint8_t *bytes, size_t avail,
                                  enum bind_end *end)
{
    struct x86_insn xi;
    enum x86_decode result = x86_decode(&xi, mode & ~CODE_REAL, mode & CODE_REAL, bytes, avail);

    *end = BIND_STOPS;
    if (result == X86_DECODE_OK) {
        bind_insn(&c->engine->map, in, &xi, c->conf.cpuid);
        *end = in->fn == op_ud ? BIND_STOPS : bind_end(&xi);
    } else if (result != X86_DECODE_MORE) {
        insn_raise(in, result == X86_DECODE_UD ? op_ud : op_gp);
    }
    return result;
}

/* Decodes from `source` into block; at least one instruction, or returns false: the first one needs more bytes. */
static bool fill(struct interp *c, struct code_block *block, const struct source *source)
{
    enum bind_end end = BIND_CONTINUES;
    size_t at = 0;

    block->n = 0;
    block->src_len = 0;
    while (block->n < c->decode_max && at < source->avail && end == BIND_CONTINUES) {
        struct insn *in = &block->insn[block->n];
        size_t avail = source->avail - at < X86_INSN_MAX ? source->avail - at : X86_INSN_MAX;
        in->off = (uint16_t)at;
        enum x86_decode result = decode_one(c, in, block->mode, source->bytes + at, avail, &end);
        if (result == X86_DECODE_MORE) {
            end = BIND_CONTINUES;
            break;
        }
        block->n++;
        block->src_len = (uint16_t)(at + (result == X86_DECODE_OK ? in->len : avail));
        at += in->len;
    }
    block->len = (uint16_t)at;
    block->chains = end != BIND_STOPS;
    return block->n > 0;
}

/*
 * One instruction that is not kept: at the end of a segment, across pages without RAM, or out of ROM. Reads its bytes one at a time,
 * as far as it needs them.
 */
static struct code_block *single(struct interp *c, uint64_t lin)
{
    struct code_block *block = &c->code->scratch;
    uint64_t allowed = limit_left(c);
    uint8_t bytes[X86_INSN_MAX];
    size_t n = 0;
    enum x86_decode result;
    enum bind_end end;

    memset(block, 0, sizeof(c->code->scratch_room));
    block->mode = current_mode(c);
    do {
        uint64_t gpa, at = c->code_size == 8 ? lin + n : (uint32_t)(lin + n);
        if (n >= allowed)
            interp_raise_error(c, X86_GP, 0);
        const uint8_t *host = mmu_fetch(c, at, &gpa);
        bytes[n++] = host ? __atomic_load_n(host, __ATOMIC_RELAXED) : mmu_fetch_byte(c, gpa);
        result = decode_one(c, &block->insn[0], block->mode, bytes, n, &end);
    } while (result == X86_DECODE_MORE);
    block->n = 1;
    block->len = block->insn[0].len;
    return block;
}

/* Room for a block of any size, which commit() then cuts down. */
static struct code_block *allocate(struct interp *c)
{
    struct code_cache *cache = c->code;
    if (cache->size - cache->used < BLOCK_MAX)
        code_flush(c);
    return (struct code_block *)(cache->arena + cache->used);
}

static void commit(struct interp *c, struct code_block *block, const uint8_t *bytes, size_t n)
{
    struct code_block **head = bucket(c->code, block->gpa, block->mode);
    uint8_t *src = (uint8_t *)&block->insn[block->n];

    memcpy(src, bytes, n);
    block->src = src;
    block->next = *head;
    *head = block;
    c->code->used = align_up((uint64_t)(src + n - c->code->arena), 64);
}

/* The first instruction crosses into the next page. Raises the faults of that page. */
static struct code_block *build_crossing(struct interp *c, struct code_block *block, uint64_t lin)
{
    size_t first = RAM_PAGE_SIZE - (lin & PAGE_OFFSET);
    uint64_t lin2 = c->code_size == 8 ? lin + first : (uint32_t)(lin + first);
    uint8_t bytes[2 * X86_INSN_MAX];
    uint64_t gpa2;
    const uint8_t *host2 = mmu_fetch(c, lin2, &gpa2);

    if (!host2)
        return single(c, lin);
    /* No mark for this page: fresh_crossing() compares its bytes each time. */
    ram_claim_code(c->conf.ram, block->host, first);
    memcpy(bytes, block->host, first);
    memcpy(bytes + first, host2, X86_INSN_MAX);
    enum bind_end end;
    block->insn[0].off = 0;
    enum x86_decode result = decode_one(c, &block->insn[0], block->mode, bytes, X86_INSN_MAX, &end);
    if (result == X86_DECODE_MORE)
        return single(c, lin);
    block->n = 1;
    block->len = block->insn[0].len;
    block->chains = end != BIND_STOPS;
    block->crosses = true;
    block->gpa2 = gpa2;
    block->src_len = (uint16_t)first;
    commit(c, block, bytes, X86_INSN_MAX);
    return block;
}

static void trace_block(const struct interp *c, const struct code_block *block, uint64_t lin)
{
    const struct engine_code code = {
        .vcpu = c->conf.index,
        .lin = lin,
        .size = c->code_size,
        .cpl = x86_cpl(&c->st),
        .guest = block->src,
        .guest_len = block->len,
    };
    interp_trace_code(c, &code);
}

/*
 * Decodes what is at block->host, of which `left` bytes are on its page; they come to `bytes`. Where it ends shows only then, so it is claimed
 * afterwards; if the bytes were changed in between, all that it may be is claimed before another go.
 */
static bool fill_claimed(struct interp *c, struct code_block *block, uint8_t bytes[SRC_MAX], size_t left)
{
    const struct source source = {bytes, left < SRC_MAX ? left : SRC_MAX};

    /* From a copy: another CPU may be writing, and what is remembered must be what was decoded. */
    memcpy(bytes, block->host, source.avail);
    if (!fill(c, block, &source))
        return false;
    ram_claim_code(c->conf.ram, block->host, block->src_len);
    if (LIKELY(memcmp(bytes, block->host, block->src_len) == 0))
        return true;
    ram_claim_code(c->conf.ram, block->host, source.avail);
    memcpy(bytes, block->host, source.avail);
    return fill(c, block, &source);
}

static struct code_block *build(struct interp *c, uint64_t lin, uint64_t gpa, const uint8_t *host)
{
    struct ram *ram = c->conf.ram;
    uint64_t left = RAM_PAGE_SIZE - (lin & PAGE_OFFSET), allowed = limit_left(c);
    struct code_block *block;
    uint8_t bytes[SRC_MAX];

    if (allowed < left + X86_INSN_MAX)
        return single(c, lin);
    _Atomic uint32_t *version = &ram->code[ram_page(ram, host)].version;
    uint32_t version_seen = atomic_load_explicit(version, memory_order_acquire);
    code_mark(c, host, gpa);
    block = allocate(c);
    memset(block, 0, sizeof(*block));
    block->gpa = gpa;
    block->host = host;
    block->mode = current_mode(c);
    block->version = version;
    block->version_seen = version_seen;
    if (!fill_claimed(c, block, bytes, left))
        return build_crossing(c, block, lin);
    commit(c, block, bytes, block->src_len);
    trace_block(c, block, lin);
    return block;
}

/* ---- finding ---- */

/* The page was written, or is marked no more: is the block still what its bytes say? */
static bool refresh(struct interp *c, struct code_block *block, uint32_t version)
{
    code_mark(c, block->host, block->gpa);
    ram_claim_code(c->conf.ram, block->host, block->src_len);
    if (memcmp(block->host, block->src, block->src_len) != 0)
        return false;
    block->version_seen = version;
    return true;
}

/* The bytes of its first page are those it was made from. */
static inline bool fresh(struct interp *c, struct code_block *block)
{
    uint32_t version = atomic_load_explicit(block->version, memory_order_acquire);

    return LIKELY(version == block->version_seen) || refresh(c, block, version);
}

/* The same for the second page of a crossing block; raises its faults. */
static bool fresh_crossing(struct interp *c, const struct code_block *block, uint64_t lin)
{
    uint64_t gpa2, lin2 = lin + block->src_len;
    const uint8_t *host2 = mmu_fetch(c, c->code_size == 8 ? lin2 : (uint32_t)lin2, &gpa2);
    size_t n = (size_t)(block->len > block->src_len ? block->len - block->src_len : X86_INSN_MAX - block->src_len);

    return host2 && gpa2 == block->gpa2 && memcmp(host2, block->src + block->src_len, n) == 0;
}

static bool within_limit(const struct interp *c, const struct code_block *block)
{
    return c->code_size == 8 || limit_left(c) >= (uint64_t)block->len + X86_INSN_MAX;
}

static void forget(struct interp *c, const struct code_block *block)
{
    struct code_block **link = bucket(c->code, block->gpa, block->mode);

    while (*link && *link != block)
        link = &(*link)->next;
    if (*link)
        *link = block->next;
}

struct code_block *code_find(struct interp *c)
{
    uint64_t gpa, lin = interp_linear_rip(c);
    uint8_t mode = current_mode(c);
    struct code_block *block;

    c->cur = NULL;
    if (UNLIKELY(!limit_left(c))) {
        c->st.rip = (uint32_t)c->st.rip; /* EIP has 32 bits: 0 comes behind the last byte of 4 GiB */
        if (!limit_left(c))
            interp_raise_error(c, X86_GP, 0);
    }
    const uint8_t *host = mmu_fetch(c, lin, &gpa);
    if (UNLIKELY(!host))
        return single(c, lin);
    for (block = *bucket(c->code, gpa, mode); block; block = block->next) {
        if (block->gpa == gpa && block->mode == mode)
            break;
    }
    if (!block)
        return build(c, lin, gpa, host);
    if (UNLIKELY(!within_limit(c, block)))
        return single(c, lin);
    if (LIKELY(fresh(c, block)) && (!block->crosses || fresh_crossing(c, block, lin)))
        return block;
    forget(c, block);
    return build(c, lin, gpa, host);
}

struct code_block *code_follow(struct interp *c, struct code_block *prev)
{
    uint64_t lin = interp_linear_rip(c);
    uint64_t from = c->code_size == 8 ? c->block_rip : (uint32_t)(c->st.seg[X86_CS].base + c->block_rip);
    uint16_t at = (uint16_t)(lin & PAGE_OFFSET);
    struct code_block *block;

    if (((lin ^ from) & ~PAGE_OFFSET) || prev == &c->code->scratch)
        return code_find(c);
    for (unsigned i = 0; i < ARRAY_SIZE(prev->link); i++) {
        block = prev->link[i];
        if (block && prev->link_at[i] == at && LIKELY(fresh(c, block)) && LIKELY(within_limit(c, block)))
            return block;
    }
    uint64_t flushes = c->code->flushes;
    block = code_find(c);
    if (block != &c->code->scratch && !block->crosses && flushes == c->code->flushes) {
        prev->link[prev->next_link] = block;
        prev->link_at[prev->next_link] = at;
        prev->next_link ^= 1;
    }
    return block;
}

void code_stop(struct interp *c)
{
    const struct insn *after = c->cur + 1;

    if (after >= c->end)
        return;
    c->n_insn -= (uint64_t)(c->end - after);
    c->end = after;
    c->st.rip = interp_next_rip(c, c->cur);
}

void code_wrote(struct interp *c, const uint8_t *host, uint64_t len)
{
    struct ram *ram = c->conf.ram;
    uint64_t page = ram_page(ram, host);

    if (LIKELY(!(atomic_load_explicit(&ram->page_flags[page], memory_order_acquire) & RAM_PAGE_CODE)))
        return;
    bool hit = ram_wrote(ram, host, len);
    /* Blocks of one instruction have no end to move: those across pages and those not kept. */
    if (!c->cur || c->block->n == 1 || ram_page(ram, c->block->host) != page)
        maybe_unmark(ram, page);
    else if (hit)
        code_stop(c);
}

void code_writing(struct interp *c, const uint8_t *host, uint64_t len)
{
    const struct ram *ram = c->conf.ram;

    if (LIKELY(!(atomic_load_explicit(&ram->page_flags[ram_page(ram, host)], memory_order_acquire) & RAM_PAGE_CODE)))
        return;
    code_written(c); /* an earlier one of the same instruction */
    c->writing = host;
    c->writing_len = len;
    c->attention |= ATTN_RECHECK;
    if (c->cur)
        code_stop(c);
}

void code_written(struct interp *c)
{
    const uint8_t *host = c->writing;

    c->writing = NULL;
    if (host)
        code_wrote(c, host, c->writing_len);
}
