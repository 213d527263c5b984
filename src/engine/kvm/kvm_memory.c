/*
 * Memory slots: RAM on both sides of the PCI hole, and read-only memory beside it; and which of RAM's pages the guest has written.
 *
 * Dirty pages come as the kernel's bitmap of a slot, which dirty_read() takes and clears, or as a ring a vCPU, where the VM was opened with such
 * (KVM_CAP_DIRTY_LOG_RING): then they are collected from the rings, by the vCPU itself when its ring is full. Either way they end in e->dirty.bits
 * or the caller's bitmap, by page of the RAM's file.
 *
 * Threads: dirty_lock is taken by who reads, and by a vCPU whose ring is full.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOT_LOW, SLOT_HIGH, SLOT_ROM };
#define SLOTS_ROM 8
#define BITS      64

static int set_slot(struct engine *e, uint32_t slot, uint64_t gpa, const void *host, uint64_t size, uint32_t flags)
{
    const struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };
    return size && ioctl(e->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static int set_ram(struct engine *e, uint32_t flags, struct err *err)
{
    const struct ram *ram = e->ram;
    const struct {
        uint64_t gpa, offset, size;
    } parts[] = {[SLOT_LOW] = {0, 0, ram->low}, [SLOT_HIGH] = {RAM_HIGH_BASE, ram->low, ram->high}};

    for (uint32_t i = 0; i < ARRAY_SIZE(parts); i++) {
        int r = set_slot(e, i, parts[i].gpa, ram->base + parts[i].offset, parts[i].size, flags);
        if (r < 0)
            return err_set(
                err, r, KVM_PROBE_DEVICE ": %" PRIu64 " MiB of memory at %#" PRIx64 ": KVM_SET_USER_MEMORY_REGION: %s",
                parts[i].size / MIB, parts[i].gpa, strerror(-r));
    }
    return 0;
}

/* All RAM on both sides of the PCI hole. What is in no slot is a device's, or nobody's: KVM_EXIT_MMIO. */
int kvm_memory_open(struct engine *e, struct err *err)
{
    return set_ram(e, 0, err);
}

int kvm_memory_rom(struct engine *e, uint64_t gpa, const void *host, uint64_t size, struct err *err)
{
    if (ioctl(e->kvm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_READONLY_MEM) <= 0)
        return err_set(err, -EOPNOTSUPP, KVM_PROBE_DEVICE ": no read-only memory: it lacks KVM_CAP_READONLY_MEM");
    if (e->n_roms == SLOTS_ROM)
        return err_set(err, -ENOSPC, KVM_PROBE_DEVICE ": more than %d pieces of read-only memory", SLOTS_ROM);
    int r = set_slot(e, SLOT_ROM + e->n_roms, gpa, host, size, KVM_MEM_READONLY);
    if (r < 0)
        return err_set(err, r, KVM_PROBE_DEVICE ": read-only memory at %#" PRIx64 ", %" PRIu64 " bytes: %s", gpa, size,
                       strerror(-r));
    e->n_roms++;
    return 0;
}

/* ---- dirty pages ---- */

static uint64_t pages(const struct engine *e)
{
    return e->ram->size / RAM_PAGE_SIZE;
}

static void mark(uint64_t *bits, uint64_t page)
{
    bits[page / BITS] |= UINT64_C(1) << page % BITS;
}

int kvm_memory_open_rings(struct engine *e, unsigned entries, struct err *err)
{
    uint64_t bytes = (uint64_t)entries * sizeof(struct kvm_dirty_gfn);
    struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING, .args = {bytes}};
    int most = ioctl(e->kvm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_DIRTY_LOG_RING);

    if (!entries || most <= 0)
        return 0;
    if (bytes > (unsigned)most)
        return err_set(err, -EINVAL, KVM_PROBE_DEVICE ": a ring of %u dirty pages: this host's have up to %zu", entries,
                       (unsigned)most / sizeof(struct kvm_dirty_gfn));
    e->ring_entries = entries;
    return kvm_vm_ioctl(e->vm, KVM_ENABLE_CAP, "KVM_CAP_DIRTY_LOG_RING", &cap, err);
}

int kvm_memory_map_ring(struct engine_vcpu *v, struct err *err)
{
    struct engine *e = v->engine;
    long offset = KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE);

    v->ring = MAP_FAILED;
    if (!e->ring_entries)
        return 0;
    v->ring = mmap(NULL, e->ring_entries * sizeof(*v->ring), PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, offset);
    if (v->ring == MAP_FAILED)
        return err_set(err, -errno, "vCPU %u: its ring of dirty pages: %s", v->conf.index, strerror(errno));
    pthread_mutex_lock(&e->dirty_lock);
    v->next_ringed = e->ringed;
    e->ringed = v;
    pthread_mutex_unlock(&e->dirty_lock);
    return 0;
}

void kvm_memory_unmap_ring(struct engine_vcpu *v)
{
    struct engine *e = v->engine;

    if (v->ring == MAP_FAILED)
        return;
    pthread_mutex_lock(&e->dirty_lock);
    struct engine_vcpu **at = &e->ringed;
    while (*at != v)
        at = &(*at)->next_ringed;
    *at = v->next_ringed;
    pthread_mutex_unlock(&e->dirty_lock);
    munmap(v->ring, e->ring_entries * sizeof(*v->ring));
}

/* The page of the RAM's file that a slot's is; what is in none of RAM's slots was never asked for. */
static bool page_of(const struct engine *e, uint32_t slot, uint64_t offset, uint64_t *page)
{
    *page = offset + (slot == SLOT_HIGH ? e->ram->low / RAM_PAGE_SIZE : 0);
    return slot <= SLOT_HIGH && *page < pages(e);
}

/* The kernel publishes an entry by its flags, and takes it back when they say that it has been seen. */
static void collect_ring_locked(struct engine_vcpu *v)
{
    struct engine *e = v->engine;

    for (;; v->ring_at++) {
        struct kvm_dirty_gfn *entry = &v->ring[v->ring_at % e->ring_entries];
        uint64_t page;
        if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            return;
        if (e->dirty && page_of(e, entry->slot & 0xffff, entry->offset, &page))
            mark(e->dirty, page);
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
    }
}

static int collect_rings_locked(struct engine *e)
{
    for (struct engine_vcpu *v = e->ringed; v; v = v->next_ringed)
        collect_ring_locked(v);
    return ioctl(e->vm, KVM_RESET_DIRTY_RINGS, 0UL) < 0 ? -errno : 0;
}

void kvm_memory_ring_full(struct engine_vcpu *v)
{
    pthread_mutex_lock(&v->engine->dirty_lock);
    (void)collect_rings_locked(v->engine);
    pthread_mutex_unlock(&v->engine->dirty_lock);
}

static void merge(uint64_t *to, uint64_t first, const uint64_t *from, uint64_t n)
{
    for (uint64_t i = 0; i < (n + BITS - 1) / BITS; i++)
        for (uint64_t bits = from[i]; bits; bits &= bits - 1)
            mark(to, first + i * BITS + (unsigned)__builtin_ctzll(bits));
}

/* One slot's, which are clear then: by KVM_CLEAR_DIRTY_LOG where it is manual, so that no page is protected before its bit has been seen. */
static int read_slot(struct engine *e, uint32_t slot, uint64_t first, uint64_t n, uint64_t *bits)
{
    uint64_t *log = n ? calloc((n + BITS - 1) / BITS, sizeof(*log)) : NULL;
    struct kvm_dirty_log get = {.slot = slot, .dirty_bitmap = log};
    struct kvm_clear_dirty_log clear = {.slot = slot, .num_pages = (uint32_t)n, .dirty_bitmap = log};
    int r = 0;

    if (!n)
        return 0;
    if (!log)
        return -ENOMEM;
    if (ioctl(e->vm, KVM_GET_DIRTY_LOG, &get) < 0)
        r = -errno;
    else
        merge(bits, first, log, n);
    if (r == 0 && e->manual_clear && ioctl(e->vm, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
        r = -errno;
    free(log);
    return r;
}

int kvm_memory_dirty_start(struct engine *e, struct err *err)
{
    struct kvm_enable_cap manual = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                    .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};
    int r = 0;

    if (!e->ring_entries && !e->manual_clear)
        e->manual_clear = ioctl(e->vm, KVM_ENABLE_CAP, &manual) == 0;
    pthread_mutex_lock(&e->dirty_lock);
    if (e->ring_entries && !e->dirty) {
        e->dirty = calloc((pages(e) + BITS - 1) / BITS, sizeof(*e->dirty));
        r = e->dirty ? 0 : err_set(err, -ENOMEM, "engine: out of memory");
    }
    pthread_mutex_unlock(&e->dirty_lock);
    return r < 0 ? r : set_ram(e, KVM_MEM_LOG_DIRTY_PAGES, err);
}

int kvm_memory_dirty_read(struct engine *e, uint64_t *bits)
{
    int r;

    pthread_mutex_lock(&e->dirty_lock);
    if (e->ring_entries) {
        r = collect_rings_locked(e);
        for (uint64_t i = 0; e->dirty && i < (pages(e) + BITS - 1) / BITS; i++) {
            bits[i] |= e->dirty[i];
            e->dirty[i] = 0;
        }
    } else {
        uint64_t low = e->ram->low / RAM_PAGE_SIZE;
        r = read_slot(e, SLOT_LOW, 0, low, bits);
        if (r == 0)
            r = read_slot(e, SLOT_HIGH, low, e->ram->high / RAM_PAGE_SIZE, bits);
    }
    pthread_mutex_unlock(&e->dirty_lock);
    return r;
}

void kvm_memory_dirty_stop(struct engine *e)
{
    struct err err;

    (void)set_ram(e, 0, &err);
    pthread_mutex_lock(&e->dirty_lock);
    if (e->ring_entries)
        (void)collect_rings_locked(e);
    free(e->dirty);
    e->dirty = NULL;
    pthread_mutex_unlock(&e->dirty_lock);
}
