#include "machine/attach.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/pci_hotplug.h"
#include "machine/machine.h"
#include "machine/machine_state.h"
#include "machine/q35.h"

/* Device 0 is the host bridge, 31 the LPC bridge. */
#define SLOT_FIRST 1
#define SLOT_LAST  30

static const struct attach_kind *const kinds[] = {
#define KIND(name, syntax, help) &attach_##name,
#include "machine/kinds.def"
#undef KIND
};

static const struct attach_kind *find_kind(const char *name, struct err *err)
{
    char list[256] = "";

    for (size_t i = 0, at = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
        if (at < sizeof(list))
            at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", kinds[i]->name);
    }
    err_set(err, -EINVAL, "'%.60s' cannot be attached; accepted are %s", name, list);
    return NULL;
}

/* ---- ids and slots ---- */

static struct attachment *find(struct machine *m, const char *id)
{
    struct attachment *a = m->attachments;

    while (a && strcmp(a->id, id) != 0)
        a = a->next;
    return a;
}

struct attachment *attach_find(struct machine *m, const char *id, struct err *err)
{
    struct attachment *found = find(m, id);
    char list[384] = "";
    size_t at = 0;

    for (const struct attachment *a = m->attachments; a && at < sizeof(list); a = a->next)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", at ? ", " : "", a->id);
    if (!found)
        err_set(err, -ENOENT, "'%.40s' is not attached; attached: %s", id, *list ? list : "nothing");
    return found;
}

/* The kind's name and the first number that is free, where the spec says no id. */
static int name_it(struct machine *m, struct attachment *a, struct err *err)
{
    if (*a->id)
        return find(m, a->id) ? err_set(err, -EEXIST, "%s: the id '%s' is taken", a->kind->name, a->id) : 0;
    for (unsigned n = 0; n == 0 || find(m, a->id); n++)
        snprintf(a->id, sizeof(a->id), "%s%u", a->kind->name, n);
    return 0;
}

bool attach_slot_valid(unsigned slot)
{
    return slot >= SLOT_FIRST && slot <= SLOT_LAST;
}

/* What a saved state is for stands where it stood. */
static int find_slot(struct machine *m, struct attachment *a, struct err *err)
{
    uint32_t taken = 0;

    if (m->source)
        return machine_state_slot(m->source, a->kind->name, a->id, &a->slot, err);

    for (const struct attachment *other = m->attachments; other; other = other->next)
        taken |= UINT32_C(1) << other->slot;
    for (a->slot = SLOT_FIRST; a->slot <= SLOT_LAST; a->slot++)
        if (!(taken & UINT32_C(1) << a->slot))
            return 0;
    return err_set(err, -ENOSPC, "%s: no PCI slot is free; there are %d", a->kind->name, SLOT_LAST - SLOT_FIRST + 1);
}

/* ---- coming and going ---- */

static int open_thread(struct machine *m, struct attachment *a, struct iothread **io, struct err *err)
{
    char name[16];
    int r = 0;

    if (a->kind->own_thread) {
        snprintf(name, sizeof(name), "%.15s", a->id);
        r = iothread_open(&a->io, name, err);
    } else if (!m->io) {
        r = iothread_open(&m->io, "devices", err);
    }
    *io = a->io ? a->io : m->io;
    return r;
}

static void free_attachment(struct attachment *a)
{
    iothread_close(a->io);
    free(a->conf);
    free(a);
}

static int open_device(struct machine *m, struct attachment *a, struct err *err)
{
    struct iothread *io = NULL;
    int r = a->kind->prepare ? a->kind->prepare(m, a->conf, err) : 0;

    if (r == 0)
        r = name_it(m, a, err);
    if (r == 0)
        r = find_slot(m, a, err);
    if (r == 0)
        r = open_thread(m, a, &io, err);
    if (r < 0)
        return r;
    const struct virtio_pci_conf conf = {
        .type = a->kind->type, .conf = a->conf, .io = io, .name = a->id, .devfn = PCI_DEVFN(a->slot, 0)};
    return vm_add_device(&m->vm, &virtio_pci_type, &conf, &a->dev, err);
}

int attach_open(struct machine *m, const char *kind, const char *const *specs, unsigned n, struct attachment **out,
                struct err *err)
{
    const struct attach_kind *k = find_kind(kind, err);
    struct attachment *a = k ? calloc(1, sizeof(*a)) : NULL;
    int r = 0;

    if (!k)
        return -EINVAL;
    if (!a || !(a->conf = calloc(1, k->conf_size))) {
        free(a);
        return err_set(err, -ENOMEM, "%s: out of memory", kind);
    }
    a->kind = k;
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = k->parse(specs[i], a->conf, a->id, err);
    if (r == 0 && vm_is_running(&m->vm) && !k->hot)
        r = err_set(err, -ENOTSUP, "%s: cannot be attached to a machine that runs", kind);
    if (r == 0)
        r = open_device(m, a, err);
    if (r < 0) {
        free_attachment(a);
        return r;
    }
    struct attachment **last = &m->attachments;
    while (*last)
        last = &(*last)->next;
    *last = a;
    if (m->paused)
        virtio_pci_pause(a->dev); /* machine_resume() takes that back */
    if (vm_is_running(&m->vm))
        pci_hotplug_added(m->board->hotplug, a->slot);
    if (out)
        *out = a;
    return 0;
}

bool attach_gathers(const char *kind)
{
    const struct attach_kind *k = find_kind(kind, NULL);

    return k && k->gathers;
}

int attach_check(const char *kind, const char *spec, struct err *err)
{
    const struct attach_kind *k = find_kind(kind, err);
    char id[ATTACH_ID_SIZE] = "";
    void *conf;

    if (!k)
        return -EINVAL;
    conf = calloc(1, k->conf_size);
    if (!conf)
        return err_set(err, -ENOMEM, "%s: out of memory", kind);
    int r = k->parse(spec, conf, id, err);
    free(conf);
    return r;
}

int attach_ask_close(struct machine *m, const char *id, struct err *err)
{
    struct attachment *a = attach_find(m, id, err);

    if (!a)
        return -ENOENT;
    if (!a->kind->hot)
        return err_set(err, -ENOTSUP, "'%s' cannot be detached while the machine runs", id);
    a->asked = true;
    pci_hotplug_ask(m->board->hotplug, a->slot);
    return 0;
}

/* No vCPU is within the device when it goes. */
static void close_one(struct machine *m, struct attachment **at)
{
    struct attachment *a = *at;
    char id[ATTACH_ID_SIZE];

    snprintf(id, sizeof(id), "%s", a->id);
    vm_pause(&m->vm);
    vm_remove_device(&m->vm, a->dev);
    vm_resume(&m->vm);
    *at = a->next;
    free_attachment(a);
    if (m->hooks.detached)
        m->hooks.detached(m->hooks.opaque, id);
}

void attach_close_ejected(struct machine *m)
{
    uint32_t slots = atomic_exchange(&m->ejected, 0);
    struct attachment **at = &m->attachments;

    while (*at)
        if (slots & UINT32_C(1) << (*at)->slot)
            close_one(m, at);
        else
            at = &(*at)->next;
}

static void close_ejected(void *opaque)
{
    attach_close_ejected(opaque);
}

void attach_ejected(void *machine, unsigned slot)
{
    struct machine *m = machine;

    atomic_fetch_or(&m->ejected, UINT32_C(1) << slot);
    if (loop_post(m->vm.loop, close_ejected, m) < 0)
        vm_end(&m->vm, VM_END_FAIL, 0);
}

void attach_close_all(struct machine *m)
{
    while (m->attachments) {
        struct attachment *a = m->attachments;
        m->attachments = a->next;
        free_attachment(a);
    }
    iothread_close(m->io);
    m->io = NULL;
}
