#include "core/pvclock.h"

#include <time.h>

void pvclock_init(struct pvclock *pv, struct ram *ram, struct clock *clock)
{
    *pv = (struct pvclock){.ram = ram, .clock = clock};
    pthread_mutex_init(&pv->lock, NULL);
}

void pvclock_fini(struct pvclock *pv)
{
    pthread_mutex_destroy(&pv->lock);
}

void pvclock_join(struct pvclock *pv, struct pvclock_vcpu *vcpu, struct vcpu_port *port)
{
    *vcpu = (struct pvclock_vcpu){.pvclock = pv, .port = port, .next = pv->vcpus};
    pv->vcpus = vcpu;
    port->pvclock = vcpu;
}

void pvclock_leave(struct pvclock_vcpu *vcpu)
{
    struct pvclock_vcpu **p = &vcpu->pvclock->vcpus;

    while (*p != vcpu)
        p = &(*p)->next;
    *p = vcpu->next;
    vcpu->port->pvclock = NULL;
}

/* As many bits in `mul` as there is room for: an error of at most 2^-31, 40 us a day. */
void pvclock_scale(uint64_t hz, uint32_t *mul, int8_t *shift)
{
    int s = 31;
    unsigned __int128 m = ((unsigned __int128)NS_PER_SEC << 1) / hz;

    while (m < UINT64_C(1) << 31) {
        s--;
        m = ((unsigned __int128)NS_PER_SEC << (32 - s)) / hz;
    }
    *mul = (uint32_t)m;
    *shift = (int8_t)s;
}

static bool in_one_page(uint64_t gpa, uint64_t len)
{
    return gpa % RAM_PAGE_SIZE <= RAM_PAGE_SIZE - len;
}

/* Sets the version, at the beginning of `data` and of the structure. */
static bool write_version(struct pvclock *pv, uint64_t gpa, uint8_t *data, uint32_t version)
{
    store_le32(data, version);
    return ram_write(pv->ram, gpa, data, 4) == 0;
}

/*
 * `data` begins with the version, which goes on from the one in RAM, where the guest may have put anything. Other vCPUs see each
 * ram_write() before the next.
 */
static bool publish_locked(struct pvclock *pv, uint64_t gpa, uint8_t *data, uint64_t len)
{
    uint32_t version;

    return in_one_page(gpa, len) && ram_read(pv->ram, gpa, &version, 4) == 0 &&
           write_version(pv, gpa, data, version | 1) && ram_write(pv->ram, gpa + 4, data + 4, len - 4) == 0 &&
           write_version(pv, gpa, data, (version | 1) + 1);
}

static bool stable_locked(const struct pvclock *pv)
{
    uint64_t offset = atomic_load(&pv->vcpus->port->tsc_offset);

    for (const struct pvclock_vcpu *v = pv->vcpus; v; v = v->next)
        if (atomic_load(&v->port->tsc_offset) != offset)
            return false;
    return true;
}

/* Time and TSC are taken at VM time 0, so that the structures of all vCPUs are one straight line, without steps between them. */
static void write_locked(struct pvclock_vcpu *vcpu, bool stable)
{
    uint8_t time[PVCLOCK_TIME_SIZE] = {0}; /* version, pad, tsc_timestamp, system_time = 0, mul, shift, flags, pad */
    uint32_t mul;
    int8_t shift;

    pvclock_scale(vcpu->pvclock->clock->tsc_hz, &mul, &shift);
    store_le64(time + 8, atomic_load(&vcpu->port->tsc_offset));
    store_le32(time + 24, mul);
    time[28] = (uint8_t)shift;
    time[29] = stable ? PVCLOCK_STABLE : 0;
    publish_locked(vcpu->pvclock, vcpu->gpa, time, sizeof(time));
}

void pvclock_start(struct pvclock_vcpu *vcpu, uint64_t gpa)
{
    struct pvclock *pv = vcpu->pvclock;

    pthread_mutex_lock(&pv->lock);
    vcpu->on = true;
    vcpu->gpa = gpa;
    write_locked(vcpu, stable_locked(pv));
    pthread_mutex_unlock(&pv->lock);
}

void pvclock_stop(struct pvclock_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->pvclock->lock);
    vcpu->on = false;
    pthread_mutex_unlock(&vcpu->pvclock->lock);
}

void pvclock_tsc_moved(struct pvclock_vcpu *vcpu)
{
    struct pvclock *pv = vcpu->pvclock;

    pthread_mutex_lock(&pv->lock);
    bool stable = stable_locked(pv);
    for (struct pvclock_vcpu *v = pv->vcpus; v; v = v->next)
        if (v->on)
            write_locked(v, stable);
    pthread_mutex_unlock(&pv->lock);
}

void pvclock_write_wall(struct pvclock *pv, uint64_t gpa)
{
    uint8_t wall[PVCLOCK_WALL_SIZE] = {0}; /* version, seconds, nanoseconds */
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    int64_t ns = ts.tv_sec * NS_PER_SEC + ts.tv_nsec - clock_now(pv->clock);
    store_le32(wall + 4, (uint32_t)(ns / NS_PER_SEC));
    store_le32(wall + 8, (uint32_t)(ns % NS_PER_SEC));
    pthread_mutex_lock(&pv->lock);
    publish_locked(pv, gpa, wall, sizeof(wall));
    pthread_mutex_unlock(&pv->lock);
}
