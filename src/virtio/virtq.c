#include "virtio/virtq.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "virtio/virtq_impl.h"

#define SEGMENTS_MAX    VIRTQ_SIZE_MAX /* of a chain, indirect ones too */
#define SEGMENTS_LEAST  8
#define SEGMENTS_A_TURN 32        /* a chain so long counts as two in a queue's turn, and so on */
#define SEGMENTS_KEPT   128       /* an item that has grown beyond is given back to the host after use */
#define CHAIN_BYTES_MAX (4 * GIB) /* 2.7.4: total length of a chain */

/* ---- lists ---- */

static void list_append(struct virtq_list *list, struct virtq_item *item)
{
    item->next = NULL;
    item->prev = list->last;
    *(list->last ? &list->last->next : &list->first) = item;
    list->last = item;
}

static void list_prepend(struct virtq_list *list, struct virtq_item *item)
{
    item->prev = NULL;
    item->next = list->first;
    *(list->first ? &list->first->prev : &list->last) = item;
    list->first = item;
}

static void list_remove(struct virtq_list *list, struct virtq_item *item)
{
    *(item->prev ? &item->prev->next : &list->first) = item->next;
    *(item->next ? &item->next->prev : &list->last) = item->prev;
}

/* ---- items ---- */

static bool item_grow(struct virtq_item *item, unsigned capacity)
{
    struct virtq_segment *segments = realloc(item->segments, capacity * sizeof(*segments));
    if (segments)
        item->segments = segments;
    struct iovec *iov = realloc(item->iov, capacity * sizeof(*iov));
    if (iov)
        item->iov = iov;
    if (!segments || !iov)
        return false;
    item->capacity = capacity;
    return true;
}

static void item_free(struct virtq_item *item)
{
    free(item->segments);
    free(item->iov);
    free(item);
}

static struct virtq_item *item_get(struct virtq *q)
{
    struct virtq_item *item = q->free;

    if (item) {
        q->free = item->next;
    } else {
        item = calloc(1, sizeof(*item));
        if (!item || !item_grow(item, SEGMENTS_LEAST)) {
            if (item)
                item_free(item);
            return NULL;
        }
        item->elem.queue = q;
        q->n_items++;
    }
    item->n_out = item->n_in = 0;
    item->elem.out_len = item->elem.in_len = 0;
    item->slots = 1;
    return item;
}

static void item_put(struct virtq *q, struct virtq_item *item)
{
    if (item->capacity > SEGMENTS_KEPT) {
        q->n_items--;
        item_free(item);
        return;
    }
    item->next = q->free;
    q->free = item;
}

/* stored: the device may have written to what it was given to write; how much it says does not matter to who follows stores. */
static void item_unpin(struct virtq *q, struct virtq_item *item, bool stored)
{
    struct ram *ram = q->v->env->ram;

    for (unsigned i = 0; i < item->n_out + item->n_in; i++) {
        struct virtq_segment *s = &item->segments[i];
        if (s->host)
            ram_unpin(ram, s->host, s->len, stored && i >= item->n_out);
        s->host = NULL;
    }
}

static bool item_pin(struct virtq *q, struct virtq_item *item)
{
    struct ram *ram = q->v->env->ram;

    for (unsigned i = 0; i < item->n_out + item->n_in; i++) {
        struct virtq_segment *s = &item->segments[i];
        if (!s->host)
            s->host = ram_pin(ram, s->gpa, s->len);
        if (!s->host)
            return false;
    }
    return true;
}

/* What the device sees; it may have consumed what it saw before. */
static void item_show(struct virtq_item *item)
{
    struct virtq_elem *elem = &item->elem;

    for (unsigned i = 0; i < item->n_out + item->n_in; i++)
        item->iov[i] = (struct iovec){.iov_base = item->segments[i].host, .iov_len = item->segments[i].len};
    elem->out = item->iov;
    elem->in = item->iov + item->n_out;
    elem->n_out = item->n_out;
    elem->n_in = item->n_in;
}

static struct virtq_item *item_of(struct virtq_elem *elem)
{
    return CONTAINER_OF(elem, struct virtq_item, elem);
}

int virtq_add(struct virtq *q, struct virtq_item *item, const struct virtq_desc *desc)
{
    unsigned n = item->n_out + item->n_in;
    bool write = desc->flags & VIRTQ_DESC_WRITE;
    struct virtq_segment s = {.gpa = desc->addr, .len = desc->len};

    if (item->n_in && !write) {
        virtq_break(q, "a buffer to read follows one to write");
        return -EINVAL;
    }
    if (!s.len) /* nothing to move, and no harm */
        return 0;
    if (item->elem.out_len + item->elem.in_len + s.len > CHAIN_BYTES_MAX || n == SEGMENTS_MAX) {
        virtq_break(q, "a chain is too long");
        return -EINVAL;
    }
    if (n == item->capacity && !item_grow(item, 2 * n)) {
        virtq_break(q, "out of memory");
        return -ENOMEM;
    }
    s.host = ram_pin(q->v->env->ram, s.gpa, s.len);
    if (!s.host) {
        virtq_break(q, "a buffer is not in RAM");
        return -EFAULT;
    }
    item->segments[n] = s;
    *(write ? &item->n_in : &item->n_out) += 1;
    *(write ? &item->elem.in_len : &item->elem.out_len) += s.len;
    return 0;
}

int virtq_add_indirect(struct virtq *q, struct virtq_item *item, const struct virtq_desc *desc)
{
    struct ram *ram = q->v->env->ram;

    if (!q->indirect || (desc->flags & VIRTQ_DESC_NEXT) || !desc->len || desc->len % VIRTQ_DESC_SIZE) {
        virtq_break(q, "an indirect descriptor that makes no sense");
        return -EINVAL;
    }
    uint8_t *table = ram_pin(ram, desc->addr, desc->len);
    if (!table) {
        virtq_break(q, "an indirect table is not in RAM");
        return -EFAULT;
    }
    int r = q->layout->walk_indirect(q, item, table, desc->len / VIRTQ_DESC_SIZE);
    ram_unpin(ram, table, desc->len, false);
    return r;
}

void virtq_fetch(struct virtq_desc *desc, const uint8_t *at)
{
    memcpy(desc, at, sizeof(*desc));
    __asm__ volatile("" : "+m"(*desc)); /* the compiler may not look there again */
}

void virtq_stored(struct virtq *q, uint8_t *host, uint64_t len)
{
    ram_stored(q->v->env->ram, host, len);
}

/* ---- the device's side ---- */

static bool usable(const struct virtq *q)
{
    const struct virtio_core *core = q->v->core;

    return q->started && !atomic_load_explicit(&core->broken, memory_order_relaxed) &&
           atomic_load_explicit(&core->master, memory_order_relaxed);
}

/* The queue has had its turn: the device's other queues and the loop's other work have theirs, and then it is told to go on. */
static bool exhausted(struct virtq *q)
{
    if (q->budget)
        return false;
    virtio_kick(q->v, q->n);
    return true;
}

static struct virtq_item *pop_returned(struct virtq *q)
{
    struct virtq_item *item = q->returned.first;

    if (!item_pin(q, item)) {
        virtq_break(q, "a buffer is not in RAM any more");
        return NULL;
    }
    list_remove(&q->returned, item);
    q->n_returned--;
    return item;
}

static struct virtq_item *pop_next(struct virtq *q)
{
    if (q->n_held + q->n_returned >= q->size) {
        if (q->layout->ready(q))
            virtq_break(q, "more chains than descriptors");
        return NULL;
    }
    struct virtq_item *item = item_get(q);
    if (!item) {
        virtq_break(q, "out of memory");
        return NULL;
    }
    if (q->layout->next(q, item) <= 0) {
        item_unpin(q, item, false);
        item_put(q, item);
        return NULL;
    }
    return item;
}

struct virtq_elem *virtq_pop(struct virtq *q)
{
    if (!usable(q) || exhausted(q))
        return NULL;
    struct virtq_item *item = q->returned.first ? pop_returned(q) : pop_next(q);
    if (!item)
        return NULL;
    unsigned cost = 1 + (item->n_out + item->n_in) / SEGMENTS_A_TURN;
    q->budget -= cost < q->budget ? cost : q->budget;
    item_show(item);
    list_append(&q->held, item);
    q->n_held++;
    return &item->elem;
}

static void push(struct virtq *q, struct virtq_elem *elem, uint32_t written)
{
    struct virtq_item *item = item_of(elem);

    list_remove(&q->held, item);
    q->n_held--;
    item_unpin(q, item, true); /* before the guest may look */
    if (q->started)
        q->layout->push(q, item, written < elem->in_len ? written : (uint32_t)elem->in_len);
    item_put(q, item);
}

void virtq_push(struct virtq *q, struct virtq_elem *elem, uint32_t written)
{
    push(q, elem, written);
}

/* Nothing is seen before the flush. */
void virtq_push_many(struct virtq *q, struct virtq_elem *const *elems, const uint32_t *written, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        push(q, elems[i], written[i]);
}

void virtq_unpop(struct virtq *q, struct virtq_elem *elem)
{
    struct virtq_item *item = item_of(elem);

    list_remove(&q->held, item);
    q->n_held--;
    list_prepend(&q->returned, item);
    q->n_returned++;
    q->budget++;
}

void virtq_signal(struct virtq *q)
{
    if (q->started && q->unflushed && q->layout->flush(q))
        q->v->core->transport->queue_interrupt(q->v->dev, atomic_load_explicit(&q->vector, memory_order_relaxed));
}

void virtq_disable_notify(struct virtq *q)
{
    if (usable(q))
        q->layout->disable_notify(q);
}

bool virtq_enable_notify(struct virtq *q)
{
    if (!usable(q) || exhausted(q))
        return false;
    q->layout->enable_notify(q);
    atomic_thread_fence(memory_order_seq_cst); /* the guest either sees the wish, or we see its chains */
    return q->returned.first || q->layout->ready(q);
}

bool virtq_ready(struct virtq *q)
{
    return usable(q) && !exhausted(q) && (q->returned.first || q->layout->ready(q));
}

unsigned virtq_held(const struct virtq *q)
{
    return q->n_held;
}

void virtq_break(struct virtq *q, const char *reason)
{
    char text[128];

    snprintf(text, sizeof(text), "queue %u: %s", q->n, reason);
    virtio_break(q->v, text);
}

/* ---- start and stop ---- */

static void unpin_rings(struct virtq *q)
{
    struct ram *ram = q->v->env->ram;

    if (q->desc)
        ram_unpin(ram, q->desc, q->desc_len, false);
    if (q->driver)
        ram_unpin(ram, q->driver, q->driver_len, false);
    if (q->device)
        ram_unpin(ram, q->device, q->device_len, false);
    q->desc = q->driver = q->device = NULL;
}

/* Sizes: 2.7, 2.8 (packed: two event suppression structures), with the event fields at the ends of the split rings. */
static void measure_rings(struct virtq *q)
{
    bool packed = q->layout == &virtq_packed;

    q->desc_len = (uint64_t)VIRTQ_DESC_SIZE * q->size;
    q->driver_len = packed ? 4 : 4 + 2 * q->size + (q->event_idx ? 2 : 0);
    q->device_len = packed ? 4 : 4 + 8 * q->size + (q->event_idx ? 2 : 0);
}

int virtq_start(struct virtq *q, const char **reason)
{
    struct virtio *v = q->v;
    struct ram *ram = v->env->ram;
    struct virtq_regs r;

    virtio_lock(v);
    r = q->regs;
    virtio_unlock(v);
    q->layout = virtio_has(v, VIRTIO_F_RING_PACKED) ? &virtq_packed : &virtq_split;
    q->indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC);
    q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
    q->size = r.size;
    if (!r.size || (q->layout == &virtq_split && (r.size & (r.size - 1)))) {
        *reason = "its size is no power of two";
        return -EINVAL;
    }
    if (r.desc % q->layout->desc_align || r.driver % q->layout->driver_align || r.device % q->layout->device_align) {
        *reason = "a ring is not aligned";
        return -EINVAL;
    }
    measure_rings(q);
    q->desc = ram_pin(ram, r.desc, q->desc_len);
    q->driver = ram_pin(ram, r.driver, q->driver_len);
    q->device = ram_pin(ram, r.device, q->device_len);
    if (!q->desc || !q->driver || !q->device) {
        unpin_rings(q);
        *reason = "a ring is not in RAM";
        return -EINVAL;
    }
    q->seen = q->avail; /* to be read anew */
    q->budget = q->size;
    q->started = true;
    return 0;
}

/* Held chains go in front of those that had been given back before them, in their order. */
void virtq_stop(struct virtq *q)
{
    if (!q->started)
        return;
    virtq_signal(q);
    while (q->held.last)
        virtq_unpop(q, &q->held.last->elem);
    for (struct virtq_item *item = q->returned.first; item; item = item->next)
        item_unpin(q, item, true);
    unpin_rings(q);
    q->started = false;
}

static void drop_items(struct virtq *q)
{
    while (q->returned.first) {
        struct virtq_item *item = q->returned.first;
        list_remove(&q->returned, item);
        q->n_returned--;
        item_put(q, item);
    }
    while (q->free) {
        struct virtq_item *item = q->free;
        q->free = item->next;
        q->n_items--;
        item_free(item);
    }
}

void virtq_reset(struct virtq *q, uint16_t size)
{
    drop_items(q);
    q->regs = (struct virtq_regs){.size = size};
    atomic_store(&q->vector, VIRTQ_NO_VECTOR);
    q->avail = q->used = q->seen = q->unflushed = 0;
    q->avail_wrap = q->used_wrap = true;
}

void virtq_fini(struct virtq *q)
{
    drop_items(q);
}

/* ---- saved state ---- */

static void stream_unsigned(struct stream *s, unsigned *p)
{
    uint32_t val = *p;

    stream_u32(s, &val);
    *p = val;
}

/* The lengths are computed anew. false: it makes no sense. */
static bool item_state(struct virtq_item *item, struct stream *s)
{
    unsigned n_out = item->n_out, n_in = item->n_in;

    stream_u16(s, &item->id);
    stream_u16(s, &item->slots);
    stream_unsigned(s, &n_out);
    stream_unsigned(s, &n_in);
    if (s->error || n_out > SEGMENTS_MAX || n_in > SEGMENTS_MAX - n_out)
        return false;
    if (!item->slots || item->slots > item->elem.queue->regs.size) /* the position in a packed ring moves on by them */
        return false;
    if (n_out + n_in > item->capacity && !item_grow(item, n_out + n_in))
        return false;
    item->n_out = item->n_in = 0;
    item->elem.out_len = item->elem.in_len = 0;
    for (unsigned i = 0; i < n_out + n_in; i++) {
        struct virtq_segment *seg = &item->segments[i];
        if (s->loading)
            *seg = (struct virtq_segment){0};
        stream_u64(s, &seg->gpa);
        stream_u32(s, &seg->len);
        *(i < n_out ? &item->elem.out_len : &item->elem.in_len) += seg->len;
    }
    item->n_out = n_out;
    item->n_in = n_in;
    return !s->error && item->elem.out_len + item->elem.in_len <= CHAIN_BYTES_MAX;
}

static void load_items(struct virtq *q, struct stream *s, unsigned n)
{
    drop_items(q);
    for (unsigned i = 0; i < n && !s->error; i++) {
        struct virtq_item *item = item_get(q);
        if (!item) {
            s->error = -ENOMEM;
        } else if (!item_state(item, s)) {
            s->error = s->error ? s->error : -EPROTO;
            item->n_out = item->n_in = 0;
            item_put(q, item);
        } else {
            list_append(&q->returned, item);
            q->n_returned++;
        }
    }
}

/* What virtq_start() and the layouts rely on. */
static bool plausible(const struct virtq *q, unsigned n_returned, unsigned size_max)
{
    bool slots_fit = q->regs.size && q->avail < q->regs.size && q->used < q->regs.size;

    return q->regs.size <= size_max && n_returned <= q->regs.size &&
           (slots_fit || !virtio_has(q->v, VIRTIO_F_RING_PACKED));
}

void virtq_state(struct virtq *q, struct stream *s, unsigned size_max)
{
    unsigned n_returned = q->n_returned;
    uint16_t vector = atomic_load(&q->vector);

    stream_u16(s, &q->regs.size);
    stream_bool(s, &q->regs.enabled);
    stream_u64(s, &q->regs.desc);
    stream_u64(s, &q->regs.driver);
    stream_u64(s, &q->regs.device);
    stream_u16(s, &vector);
    atomic_store(&q->vector, vector);
    stream_u16(s, &q->avail);
    stream_u16(s, &q->used);
    stream_bool(s, &q->avail_wrap);
    stream_bool(s, &q->used_wrap);
    stream_unsigned(s, &n_returned);
    if (s->loading) {
        if (!s->error && !plausible(q, n_returned, size_max))
            s->error = -EPROTO;
        if (s->error)
            return;
        q->unflushed = 0;
        load_items(q, s, n_returned);
        return;
    }
    for (struct virtq_item *item = q->returned.first; item; item = item->next)
        if (!item_state(item, s))
            s->error = s->error ? s->error : -EPROTO;
}

/* ---- vectors ---- */

static size_t iov_copy(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len, bool write)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        size_t chunk = iov[i].iov_len - off < len - done ? iov[i].iov_len - off : len - done;
        uint8_t *guest = (uint8_t *)iov[i].iov_base + off, *ours = (uint8_t *)buf + done;
        memcpy(write ? guest : ours, write ? ours : guest, chunk);
        done += chunk;
        off = 0;
    }
    return done;
}

size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len)
{
    return iov_copy(iov, n, off, buf, len, false);
}

size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len)
{
    return iov_copy(iov, n, off, (void *)(uintptr_t)buf, len, true);
}
