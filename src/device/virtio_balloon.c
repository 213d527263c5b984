/*
 * Requests are worked on in slices, so that a long list does not keep the device's thread from stopping. A
 * list's page numbers are sorted slice by slice, for Linux names pages one by one, mostly downwards, and a run costs one call to the host.
 */
#include "device/virtio_balloon.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/log.h"

#define PFN_SHIFT   12 /* whatever the guest's pages are (5.5.6) */
#define SLICE_PAGES 1024
#define LIST_MAX    (UINT64_C(4) << 20) /* bytes of a list, 4 GiB of pages; Linux sends 1 KiB */
#define STATS_FRESH NS_PER_SEC

/* 5.5.3. MUST_TELL_HOST is not offered: pages need nothing of us before they are used again. */
#define F_STATS_VQ       (UINT64_C(1) << 1)
#define F_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define F_PAGE_POISON    (UINT64_C(1) << 4)
#define F_PAGE_REPORTING (UINT64_C(1) << 5)

/* 5.5.4: le32 each */
enum { CONFIG_NUM_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_HINT_CMD = 8, CONFIG_POISON = 12, CONFIG_SIZE = 16 };

/* 5.5.2. Queue 3 would be free page hints, which we do not offer. */
enum { INFLATE, DEFLATE, STATS, HINTS, REPORTING, N_QUEUES };

struct __attribute__((packed)) stat_entry {
    uint16_t tag;
    uint64_t value;
};

/* A queue of requests, and how far the one at hand has come. */
struct work {
    struct virtq_elem *elem;
    uint64_t done;     /* inflate, deflate: bytes of the list */
    unsigned segments; /* report: ranges done */
};

struct virtio_balloon {
    struct virtio v;
    struct work work[N_QUEUES];
    struct loop_event more;   /* on_work() */
    struct virtq_elem *stats; /* the guest's buffer, kept until statistics are wanted (5.5.6.3) */
    struct loop_timer timer;
    int64_t period; /* ns; 0: none */
    bool complained;

    pthread_mutex_t lock; /* of what follows: any thread's */
    struct virtio_balloon_info info;
    int64_t told; /* when the statistics came */
};

static void count(struct virtio_balloon *b, uint64_t *what, uint64_t by)
{
    pthread_mutex_lock(&b->lock);
    *what += by;
    pthread_mutex_unlock(&b->lock);
}

static uint32_t config_u32(struct virtio_balloon *b, unsigned off)
{
    uint8_t bytes[4];

    virtio_config_get(&b->v, off, bytes, sizeof(bytes));
    return load_le32(bytes);
}

static void config_put_u32(struct virtio_balloon *b, unsigned off, uint32_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    virtio_config_put(&b->v, off, bytes, sizeof(bytes));
}

static void complain(struct virtio_balloon *b, const char *what)
{
    if (!b->complained)
        log_warn("%s: the guest %s", b->v.name, what);
    b->complained = true;
}

/* ---- pages to the host ---- */

static void discard(struct virtio_balloon *b, uint8_t *host, uint64_t len, uint64_t *counter)
{
    int r = ram_discard(b->v.env->ram, host, len);

    if (r == 0)
        count(b, counter, len);
    else if (!b->complained) {
        b->complained = true;
        log_warn("%s: memory cannot be given back to the host: %s", b->v.name, strerror(-r));
    }
}

static int compare_pfns(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The numbers of pages that are RAM: sorted, each once. Returns how many. */
static unsigned checked_pfns(struct virtio_balloon *b, uint32_t *pfns, unsigned n)
{
    unsigned kept = 0, refused = 0;

    qsort(pfns, n, sizeof(*pfns), compare_pfns);
    for (unsigned i = 0; i < n; i++) {
        if (kept && pfns[kept - 1] == pfns[i])
            continue;
        if (ram_host(b->v.env->ram, (uint64_t)pfns[i] << PFN_SHIFT, RAM_PAGE_SIZE))
            pfns[kept++] = pfns[i];
        else
            refused++;
    }
    if (refused) {
        count(b, &b->info.refused_pages, refused);
        complain(b, "names pages for the balloon that are no RAM; they are left alone");
    }
    return kept;
}

static void discard_pfns(struct virtio_balloon *b, const uint32_t *pfns, unsigned n)
{
    for (unsigned i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && pfns[i + run] == pfns[i] + run; run++)
            ;
        uint64_t len = (uint64_t)run << PFN_SHIFT;
        uint8_t *host = ram_host(b->v.env->ram, (uint64_t)pfns[i] << PFN_SHIFT, len);
        if (host) /* each page is RAM, and so is a run: the PCI hole lies between its two parts */
            discard(b, host, len, &b->info.inflated_bytes);
    }
}

/* A slice of a list of page numbers. Returns whether the list is done. */
static bool work_list(struct virtio_balloon *b, unsigned queue, struct work *w)
{
    uint32_t pfns[SLICE_PAGES];
    size_t got = iov_read(w->elem->out, w->elem->n_out, w->done, pfns, sizeof(pfns));
    unsigned n = (unsigned)(got / sizeof(*pfns));

    if (queue == INFLATE)
        discard_pfns(b, pfns, checked_pfns(b, pfns, n));
    else
        count(b, &b->info.deflated_bytes, (uint64_t)n << PFN_SHIFT);
    w->done += got;
    return got < sizeof(pfns) || w->done >= w->elem->out_len;
}

/* 5.5.6.7: where the guest relies on what free pages hold, zeroes must be that. */
static bool may_discard_reports(struct virtio_balloon *b)
{
    return !virtio_has(&b->v, F_PAGE_POISON) || config_u32(b, CONFIG_POISON) == 0;
}

static bool work_report(struct virtio_balloon *b, struct work *w)
{
    if (w->segments < w->elem->n_in && may_discard_reports(b)) {
        const struct iovec *range = &w->elem->in[w->segments++];
        discard(b, range->iov_base, range->iov_len, &b->info.reported_bytes);
        return w->segments == w->elem->n_in;
    }
    return true;
}

/* ---- statistics ---- */

static void read_stats(struct virtio_balloon *b)
{
    struct stat_entry entries[4 * VIRTIO_BALLOON_N_STATS];
    size_t n = iov_read(b->stats->out, b->stats->n_out, 0, entries, sizeof(entries)) / sizeof(entries[0]);

    pthread_mutex_lock(&b->lock);
    b->info.stats_there = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned tag = load_le16(&entries[i].tag);
        if (tag >= VIRTIO_BALLOON_N_STATS)
            continue;
        b->info.stats[tag] = load_le64(&entries[i].value);
        b->info.stats_there |= 1u << tag;
    }
    b->told = loop_now();
    pthread_mutex_unlock(&b->lock);
}

/* The guest puts its statistics into a new buffer when it gets this one back. */
static void ask(struct virtio_balloon *b)
{
    if (!b->stats)
        return;
    virtq_push(b->v.queues[STATS], b->stats, 0);
    virtq_signal(b->v.queues[STATS]);
    b->stats = NULL;
}

/* A second buffer is against the rules (5.5.6.3.1), and the first goes back. */
static bool work_stats(struct virtio_balloon *b)
{
    struct virtq *q = b->v.queues[STATS];

    virtq_disable_notify(q);
    struct virtq_elem *elem = virtq_pop(q);
    if (!elem)
        return virtq_enable_notify(q);
    ask(b);
    b->stats = elem;
    read_stats(b);
    return true;
}

static void on_timer(void *opaque)
{
    struct virtio_balloon *b = opaque;

    if (virtio_running(&b->v))
        ask(b);
    if (b->period)
        loop_timer_set(&b->timer, loop_now() + b->period);
}

/* ---- requests ---- */

/* Takes the next request of a queue; false: there is none. */
static bool take(struct virtio_balloon *b, unsigned queue, struct work *w)
{
    struct virtq *q = b->v.queues[queue];

    if (!w->elem) {
        *w = (struct work){.elem = virtq_pop(q)};
        if (w->elem && queue <= DEFLATE && w->elem->out_len > LIST_MAX) {
            virtq_push(q, w->elem, 0);
            w->elem = NULL;
            virtq_break(q, "a balloon request names more than a million pages");
        }
    }
    return w->elem;
}

/* A slice of the queue's work. Returns whether there may be more. */
static bool work_queue(struct virtio_balloon *b, unsigned queue)
{
    struct work *w = &b->work[queue];
    struct virtq *q = b->v.queues[queue];

    if (queue == STATS)
        return work_stats(b);
    virtq_disable_notify(q);
    if (!take(b, queue, w))
        return virtq_enable_notify(q);
    if (queue >= HINTS ? work_report(b, w) : work_list(b, queue, w)) {
        virtq_push(q, w->elem, 0);
        virtq_signal(q);
        w->elem = NULL;
    }
    return true;
}

/*
 * Linux up to 6.10 numbers the queues of features that both sides have without gaps, so that its reports come in queue 3, and the specification's in
 * 4: without hints, either is reports.
 */
static bool has_work(const struct virtio_balloon *b, unsigned queue)
{
    static const uint64_t needs[N_QUEUES] = {
        [STATS] = F_STATS_VQ, [HINTS] = F_PAGE_REPORTING, [REPORTING] = F_PAGE_REPORTING};

    return (!needs[queue] || virtio_has(&b->v, needs[queue])) && virtio_queue_enabled(&b->v, queue);
}

static void on_work(void *opaque)
{
    struct virtio_balloon *b = opaque;
    bool more = false;

    if (!virtio_running(&b->v))
        return;
    for (unsigned i = 0; i < N_QUEUES; i++)
        if (has_work(b, i))
            more |= work_queue(b, i);
    if (more)
        loop_event_set(&b->more);
}

/* ---- the device ---- */

static void balloon_start(struct virtio *v)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;

    if (b->period)
        loop_timer_set(&b->timer, loop_now() + b->period);
}

static void balloon_notify(struct virtio *v, unsigned n)
{
    on_work(v);
}

/* A request that is half done begins anew: its pages are the host's until it is pushed. */
static void balloon_stop(struct virtio *v)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;

    loop_timer_cancel(&b->timer);
    for (unsigned i = 0; i < N_QUEUES; i++) {
        if (b->work[i].elem)
            virtq_unpop(v->queues[i], b->work[i].elem);
        b->work[i].elem = NULL;
    }
    if (b->stats)
        virtq_unpop(v->queues[STATS], b->stats);
    b->stats = NULL;
    virtio_stopped(v);
}

static void balloon_reset(struct virtio *v)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;

    config_put_u32(b, CONFIG_ACTUAL, 0);
    config_put_u32(b, CONFIG_POISON, 0);
    pthread_mutex_lock(&b->lock);
    b->info.stats_there = 0;
    b->told = -1;
    pthread_mutex_unlock(&b->lock);
    b->complained = false;
}

static uint32_t target_pages(const struct virtio_balloon *b, uint64_t bytes)
{
    uint64_t ram = b->v.env->ram->size;

    return (uint32_t)((bytes < ram ? bytes : ram) >> PFN_SHIFT);
}

static int balloon_open(struct virtio *v, const void *conf, struct err *err)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;
    const struct virtio_balloon_conf *c = conf;

    v->features = F_STATS_VQ | F_DEFLATE_ON_OOM | F_PAGE_POISON | F_PAGE_REPORTING;
    v->n_queues = N_QUEUES;
    v->queue_size = 128;
    b->period = (int64_t)c->stats_secs * NS_PER_SEC;
    b->told = -1;
    pthread_mutex_init(&b->lock, NULL);
    loop_timer_init(&b->timer, v->io->loop, on_timer, b);
    loop_event_init(&b->more, v->io->loop, on_work, b);

    const uint8_t none[CONFIG_SIZE] = {0};
    virtio_config_put(v, 0, none, sizeof(none));
    config_put_u32(b, CONFIG_NUM_PAGES, target_pages(b, c->target));
    virtio_config_writable(v, CONFIG_ACTUAL, 4);
    virtio_config_writable(v, CONFIG_POISON, 4);
    return 0;
}

/* On the iothread: there on_timer() is not just about to set the timer anew. */
static void fini_loop(void *opaque)
{
    struct virtio_balloon *b = opaque;

    loop_timer_cancel(&b->timer);
    loop_event_fini(&b->more);
}

static void balloon_close(struct virtio *v)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;

    iothread_call(v->io, fini_loop, b);
    pthread_mutex_destroy(&b->lock);
}

void virtio_balloon_set_target(struct virtio *v, uint64_t bytes)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;

    config_put_u32(b, CONFIG_NUM_PAGES, target_pages(b, bytes));
    virtio_config_changed(v);
}

void virtio_balloon_get(struct virtio *v, struct virtio_balloon_info *info)
{
    struct virtio_balloon *b = (struct virtio_balloon *)v;
    int64_t now = loop_now();

    pthread_mutex_lock(&b->lock);
    *info = b->info;
    info->stats_age_ns = b->told < 0 ? -1 : now - b->told;
    pthread_mutex_unlock(&b->lock);
    info->target = (uint64_t)config_u32(b, CONFIG_NUM_PAGES) << PFN_SHIFT;
    info->actual = (uint64_t)config_u32(b, CONFIG_ACTUAL) << PFN_SHIFT;
    if (info->stats_age_ns < 0 || info->stats_age_ns > STATS_FRESH)
        loop_timer_set(&b->timer, now);
}

const char *virtio_balloon_stat_name(enum virtio_balloon_stat stat)
{
    static const char *const names[VIRTIO_BALLOON_N_STATS] = {
        [VIRTIO_BALLOON_SWAP_IN] = "swapped_in_bytes",
        [VIRTIO_BALLOON_SWAP_OUT] = "swapped_out_bytes",
        [VIRTIO_BALLOON_MAJOR_FAULTS] = "major_faults",
        [VIRTIO_BALLOON_MINOR_FAULTS] = "minor_faults",
        [VIRTIO_BALLOON_FREE] = "free_bytes",
        [VIRTIO_BALLOON_TOTAL] = "total_bytes",
        [VIRTIO_BALLOON_AVAILABLE] = "available_bytes",
        [VIRTIO_BALLOON_CACHES] = "caches_bytes",
        [VIRTIO_BALLOON_HUGE_ALLOCATIONS] = "huge_page_allocations",
        [VIRTIO_BALLOON_HUGE_FAILURES] = "huge_page_failures",
    };

    return stat < VIRTIO_BALLOON_N_STATS ? names[stat] : "";
}

const struct virtio_type virtio_balloon_type = {
    .name = "virtio-balloon",
    .id = 5,
    .pci_class = 0x00ff00,
    .size = sizeof(struct virtio_balloon),
    .open = balloon_open,
    .start = balloon_start,
    .notify = balloon_notify,
    .stop = balloon_stop,
    .reset = balloon_reset,
    .close = balloon_close,
};
