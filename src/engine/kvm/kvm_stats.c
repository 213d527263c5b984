/*
 * What the kernel counts of a vCPU (Linux, Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD; since 5.14): every exit of the CPU's, also those that KVM
 * answers without this process hearing of them. A file with a header, descriptors with a name each, and values.
 */
#include "engine/kvm/kvm.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MOST_FIGURES 512u
#define MOST_NAME    256u

void kvm_stats_open(struct engine_vcpu *v)
{
    v->stats_fd = ioctl(v->engine->kvm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_BINARY_STATS_FD) > 0
                      ? ioctl(v->fd, KVM_GET_STATS_FD, 0UL)
                      : -1;
}

void kvm_stats_close(struct engine_vcpu *v)
{
    if (v->stats_fd >= 0)
        close(v->stats_fd);
}

static bool read_at(int fd, void *buf, size_t len, uint64_t off)
{
    return pread(fd, buf, len, (off_t)off) == (ssize_t)len;
}

/* One number that only grows, or a state; no histogram. */
static bool is_plain(const struct kvm_stats_desc *d)
{
    uint32_t type = d->flags & KVM_STATS_TYPE_MASK;
    return d->size == 1 && (type == KVM_STATS_TYPE_CUMULATIVE || type == KVM_STATS_TYPE_PEAK);
}

static void put_figures(int fd, const struct kvm_stats_header *h, const uint8_t *descs,
                        const struct engine_figures *out)
{
    size_t step = sizeof(struct kvm_stats_desc) + h->name_size;

    for (uint32_t i = 0; i < h->num_desc; i++) {
        struct kvm_stats_desc d;
        char name[MOST_NAME + 1] = "";
        uint64_t value;
        memcpy(&d, descs + i * step, sizeof(d));
        memcpy(name, descs + i * step + sizeof(d), h->name_size);
        if (is_plain(&d) && read_at(fd, &value, sizeof(value), (uint64_t)h->data_offset + d.offset))
            out->put(out->opaque, name, value);
    }
}

void kvm_stats_figures(struct engine_vcpu *v, const struct engine_figures *out)
{
    struct kvm_stats_header h;

    if (v->stats_fd < 0 || !read_at(v->stats_fd, &h, sizeof(h), 0) || h.num_desc > MOST_FIGURES ||
        h.name_size > MOST_NAME)
        return;
    size_t len = h.num_desc * (sizeof(struct kvm_stats_desc) + h.name_size);
    uint8_t *descs = malloc(len ? len : 1);
    if (descs && read_at(v->stats_fd, descs, len, h.desc_offset))
        put_figures(v->stats_fd, &h, descs, out);
    free(descs);
}
