#include "machine/machine_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "device/debugexit.h"
#include "machine/machine.h"
#include "machine/q35.h"

enum {
    BLOCK_MACHINE = 1,
    BLOCK_RAM = 2,
    BLOCK_VCPU = 3,
    BLOCK_BOARD = 4,
    BLOCK_DEVICE = 5,
};

#define DEVICES_MOST 64 /* a board's, and what is attached to it */

/* ---- what a device is called in the file ---- */

static bool has_debug_exit(const struct machine *m)
{
    const struct device *dev = m->vm.devices;

    while (dev && dev->type != &debugexit_type)
        dev = dev->next;
    return dev;
}

/* An attachment by kind and id, a device of the board by type and number. */
static void label_of(const struct machine *m, const struct device *dev, char label[MACHINE_STATE_LABEL])
{
    unsigned n = 0;

    memset(label, 0, MACHINE_STATE_LABEL);
    for (const struct attachment *a = m->attachments; a; a = a->next)
        if (a->dev == dev) {
            snprintf(label, MACHINE_STATE_LABEL, "%.16s %s", a->kind->name, a->id);
            return;
        }
    for (const struct device *other = m->vm.devices; other != dev; other = other->next)
        n += other->type == dev->type;
    snprintf(label, MACHINE_STATE_LABEL, "%.32s %u", dev->type->name, n);
}

/* ---- the head ---- */

static void attachment_state(struct machine_state_attachment *a, struct stream *s)
{
    stream_text(s, a->kind, sizeof(a->kind));
    stream_text(s, a->id, sizeof(a->id));
    stream_u8(s, &a->slot);
}

static void check_head(const struct machine_state_head *h, struct stream *s)
{
    uint64_t slots = 0;

    if (h->n_cpus < 1 || h->n_cpus > VM_MAX_VCPUS)
        stream_refuse(s, -EPROTO, "it has %u vCPUs; accepted are 1 to %d", h->n_cpus, VM_MAX_VCPUS);
    if (h->ram_size < MACHINE_RAM_LEAST || h->ram_size > MACHINE_RAM_MOST || h->ram_size % RAM_PAGE_SIZE)
        stream_refuse(s, -EPROTO,
                      "it has memory of %" PRIu64 " bytes; accepted are whole 4 KiB pages, " MACHINE_RAM_RANGE,
                      h->ram_size);
    if (h->tsc_hz < VM_STATE_TSC_HZ_LEAST || h->tsc_hz > VM_STATE_TSC_HZ_MOST)
        stream_refuse(s, -EPROTO, "its TSC counts at %" PRIu64 " Hz", h->tsc_hz);
    if (h->clock_ns < 0 || h->clock_ns > CLOCK_NS_MOST)
        stream_refuse(s, -EPROTO, "its clock stands at %" PRId64 " ns", h->clock_ns);
    for (unsigned i = 0; !s->error && i < h->n_attachments; i++) {
        if (!attach_slot_valid(h->attachments[i].slot) || slots >> h->attachments[i].slot & 1)
            stream_refuse(s, -EPROTO, "its '%s' has PCI slot %u", h->attachments[i].id, h->attachments[i].slot);
        else
            slots |= UINT64_C(1) << h->attachments[i].slot;
    }
}

static void head_state(struct machine_state_head *h, struct stream *s)
{
    stream_section(s, "machine", 1);
    stream_text(s, h->engine, sizeof(h->engine));
    stream_text(s, h->cpu, sizeof(h->cpu));
    stream_u32(s, &h->n_cpus);
    stream_u64(s, &h->ram_size);
    stream_u64(s, &h->tsc_hz);
    stream_i64(s, &h->clock_ns);
    stream_i64(s, &h->saved_ns);
    stream_bool(s, &h->debug_exit);
    cpuid_table_state(&h->cpuid, s);
    stream_u32(s, &h->n_attachments);
    if (h->n_attachments > MACHINE_STATE_ATTACHMENTS)
        stream_refuse(s, -EPROTO, "it has %u attachments", h->n_attachments);
    for (unsigned i = 0; !s->error && i < h->n_attachments; i++)
        attachment_state(&h->attachments[i], s);
    if (s->loading && !s->error)
        check_head(h, s);
}

static void describe(struct machine *m, struct machine_state_head *h)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    *h = (struct machine_state_head){
        .n_cpus = m->vm.conf.n_vcpus,
        .ram_size = m->vm.conf.ram_size,
        .tsc_hz = m->vm.clock.tsc_hz,
        .clock_ns = clock_now(&m->vm.clock),
        .saved_ns = now.tv_sec * NS_PER_SEC + now.tv_nsec,
        .debug_exit = has_debug_exit(m),
    };
    snprintf(h->engine, sizeof(h->engine), "%s", m->vm.conf.engine->name);
    snprintf(h->cpu, sizeof(h->cpu), "%s", x86_cpuid_model_name(m->vm.conf.cpu));
    cpuid_table_get(m->vm.vcpus[0], &h->cpuid);
    for (const struct attachment *a = m->attachments; a && h->n_attachments < MACHINE_STATE_ATTACHMENTS; a = a->next) {
        struct machine_state_attachment *to = &h->attachments[h->n_attachments++];
        snprintf(to->kind, sizeof(to->kind), "%s", a->kind->name);
        snprintf(to->id, sizeof(to->id), "%s", a->id);
        to->slot = (uint8_t)a->slot;
    }
}

/* ---- save ---- */

struct saving {
    struct machine *m;
    struct state_file_writer writer;
    struct err *err;
};

/* One block of what `s` holds by now; `what` is for messages. Frees it. */
static int put_stream(struct saving *save, uint32_t kind, uint64_t number, struct stream *s, const char *what)
{
    int r = s->error;

    if (r < 0)
        r = *s->why ? err_set(save->err, r, "%s", s->why)
                    : err_set(save->err, r, "'%s' has a state that cannot be saved: %s", what, strerror(-r));
    else if ((r = state_file_put(&save->writer, kind, number, s->data, s->len)) < 0)
        err_set(save->err, r, "%s", strerror(-r));
    stream_fini(s);
    return r;
}

static int put_head(struct saving *save)
{
    struct machine_state_head head;
    struct stream s;

    describe(save->m, &head);
    stream_init_save(&s);
    head_state(&head, &s);
    return put_stream(save, BLOCK_MACHINE, 0, &s, "machine");
}

static int put_vcpus(struct saving *save)
{
    const struct vm *vm = &save->m->vm;
    struct stream s;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < vm->conf.n_vcpus; i++) {
        stream_init_save(&s);
        vm_state_vcpu(vm->vcpus[i], &s);
        r = put_stream(save, BLOCK_VCPU, i, &s, "vCPU");
    }
    return r;
}

static int put_board(struct saving *save)
{
    struct stream s;

    stream_init_save(&s);
    q35_state(save->m->board, &s);
    return put_stream(save, BLOCK_BOARD, 0, &s, "board");
}

static int put_devices(struct saving *save)
{
    char label[MACHINE_STATE_LABEL];
    struct stream s;
    uint64_t n = 0;
    int r = 0;

    for (struct device *dev = save->m->vm.devices; r == 0 && dev; dev = dev->next) {
        label_of(save->m, dev, label);
        stream_init_save(&s);
        stream_text(&s, label, sizeof(label));
        int e = device_state(dev, &s);
        s.error = s.error ? s.error : e;
        r = put_stream(save, BLOCK_DEVICE, n++, &s, label);
    }
    return r;
}

int machine_state_save(struct machine *m, int fd, const struct vm_state_stop *stop, struct err *err)
{
    struct saving save = {.m = m, .err = err};
    uint64_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        id = (uint64_t)clock_now(&m->vm.clock);
    int r = state_file_begin(&save.writer, fd, id);
    if (r < 0)
        return err_set(err, r, "%s", strerror(-r));
    r = put_head(&save);
    if (r < 0)
        return r;
    /* Behind the devices, which may still write to it; before what it takes long to write, since that may fail. */
    r = put_vcpus(&save);
    if (r == 0)
        r = put_board(&save);
    if (r == 0)
        r = put_devices(&save);
    if (r < 0)
        return r;
    r = vm_state_save_ram(&m->vm, &save.writer, BLOCK_RAM, stop);
    if (r == 0)
        r = state_file_end(&save.writer);
    return r < 0 ? err_set(err, r, "%s", r == -ECANCELED ? "a signal wants the VM's end" : strerror(-r)) : 0;
}

/* ---- load ---- */

/* The model of that name; false: this vireo has none. */
static bool find_model(const char *name, enum x86_cpu_model *model)
{
    for (*model = 0; *model < X86_CPU_N_MODELS; ++*model)
        if (strcmp(x86_cpuid_model_name(*model), name) == 0)
            return true;
    return false;
}

int machine_state_open(struct machine_state_source *source, const char *path, struct err *err)
{
    struct state_file_block block;
    struct stream s;

    *source = (struct machine_state_source){.path = path};
    source->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0)
        return err_set(err, -errno, "cannot open '%.200s': %s", path, strerror(errno));
    int r = state_file_open(&source->reader, source->fd, path, err);
    if (r == 0)
        r = state_file_next(&source->reader, &block, err);
    if (r == 1) {
        stream_init_load(&s, block.data, block.len);
        head_state(&source->head, &s);
        r = s.error;
        if (r == 0 && (block.kind != BLOCK_MACHINE || s.pos != s.len))
            r = -EPROTO;
        if (r == 0 && !find_model(source->head.cpu, &source->cpu))
            stream_refuse(&s, r = -EPROTO, "its CPU is of the model '%s', which this vireo has not", source->head.cpu);
        if (r < 0)
            err_set(err, r, "'%.200s' cannot be loaded: %s", path,
                    *s.why ? s.why : "it does not begin with a machine's description");
    } else if (r == 0) {
        r = err_set(err, -EPROTO, "'%.200s' cannot be loaded: there is nothing in it", path);
    }
    if (r < 0)
        machine_state_close(source);
    return r;
}

void machine_state_close(struct machine_state_source *source)
{
    state_file_close(&source->reader);
    if (source->fd >= 0)
        close(source->fd);
    source->fd = -1;
}

int machine_state_slot(const struct machine_state_source *source, const char *kind, const char *id, unsigned *slot,
                       struct err *err)
{
    const struct machine_state_head *h = &source->head;
    char list[256] = "";
    size_t at = 0;

    for (unsigned i = 0; i < h->n_attachments; i++) {
        const struct machine_state_attachment *a = &h->attachments[i];
        if (strcmp(a->kind, kind) == 0 && strcmp(a->id, id) == 0) {
            *slot = a->slot;
            return 0;
        }
        if (at < sizeof(list))
            at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s '%s'", at ? ", " : "", a->kind, a->id);
    }
    return err_set(err, -ENOENT, "%s '%s' is not in the saved state '%.100s'; in it are: %s", kind, id, source->path,
                   *list ? list : "none");
}

bool machine_state_has_kind(const struct machine_state_source *source, const char *kind)
{
    for (unsigned i = 0; i < source->head.n_attachments; i++)
        if (strcmp(source->head.attachments[i].kind, kind) == 0)
            return true;
    return false;
}

static const struct attachment *find_attached(const struct machine *m, const struct machine_state_attachment *wanted)
{
    const struct attachment *a = m->attachments;

    while (a && (strcmp(a->id, wanted->id) != 0 || strcmp(a->kind->name, wanted->kind) != 0))
        a = a->next;
    return a;
}

int machine_state_check_attached(const struct machine *m, const struct machine_state_source *source, struct err *err)
{
    for (unsigned i = 0; i < source->head.n_attachments; i++) {
        const struct machine_state_attachment *a = &source->head.attachments[i];
        if (!find_attached(m, a))
            return err_set(err, -ENOENT,
                           "the saved state '%.200s' has the %s '%s', which is not given: accepted is a --%s for it",
                           source->path, a->kind, a->id, a->kind);
    }
    return 0;
}

struct loading {
    struct machine *m;
    struct machine_state_source *source;
    struct err *err;
    uint32_t vcpus; /* those loaded, a bit each */
    bool board;
    struct device *devices[DEVICES_MOST]; /* those not loaded yet */
    unsigned n_devices;
};

static int refuse(const struct loading *load, int error, const char *what, const char *why)
{
    return err_set(load->err, error, "'%.200s' cannot be loaded: %s%s%s", load->source->path, what, *what ? ": " : "",
                   why);
}

/* What a block held must be all that was looked for. */
static int finish(const struct loading *load, struct stream *s, const char *what)
{
    if (!s->error && s->pos != s->len)
        stream_refuse(s, -EPROTO, "there is more than it knows");
    if (!s->error)
        return 0;
    return refuse(load, s->error, what, *s->why ? s->why : "what it was saved with cannot be");
}

static int load_vcpu(struct loading *load, const struct state_file_block *block)
{
    struct vm *vm = &load->m->vm;
    struct stream s;

    if (block->number >= vm->conf.n_vcpus || load->vcpus >> block->number & 1)
        return refuse(load, -EPROTO, "vCPU", "there is one too many");
    load->vcpus |= 1u << block->number;
    stream_init_load(&s, block->data, block->len);
    vm_state_vcpu(vm->vcpus[block->number], &s);
    return finish(load, &s, "vCPU");
}

static int load_board(struct loading *load, const struct state_file_block *block)
{
    struct stream s;

    load->board = true;
    stream_init_load(&s, block->data, block->len);
    q35_state(load->m->board, &s);
    return finish(load, &s, "board");
}

static struct device **find_device(struct loading *load, const char *wanted)
{
    char label[MACHINE_STATE_LABEL];

    for (unsigned i = 0; i < load->n_devices; i++) {
        if (!load->devices[i])
            continue;
        label_of(load->m, load->devices[i], label);
        if (strcmp(label, wanted) == 0)
            return &load->devices[i];
    }
    return NULL;
}

static int load_device(struct loading *load, const struct state_file_block *block)
{
    char label[MACHINE_STATE_LABEL];
    struct device **dev;
    struct stream s;

    stream_init_load(&s, block->data, block->len);
    stream_text(&s, label, sizeof(label));
    if (s.error)
        return finish(load, &s, "device");
    dev = find_device(load, label);
    if (!dev)
        return refuse(load, -EPROTO, label, "the machine has no such device, or had it already");
    int e = device_state(*dev, &s);
    s.error = s.error ? s.error : e;
    *dev = NULL;
    return finish(load, &s, label);
}

static int load_block(struct loading *load, const struct state_file_block *block)
{
    switch (block->kind) {
    case BLOCK_RAM: {
        int r = vm_state_load_ram(&load->m->vm, block);
        return r < 0 ? refuse(load, r, "memory", "there is more than the machine has") : 0;
    }
    case BLOCK_VCPU:
        return load_vcpu(load, block);
    case BLOCK_BOARD:
        return load_board(load, block);
    case BLOCK_DEVICE:
        return load_device(load, block);
    default:
        return refuse(load, -EPROTO, "", "a block is of an unknown kind");
    }
}

/* Nothing is left as it was at power-on. */
static int check_complete(const struct loading *load)
{
    char label[MACHINE_STATE_LABEL];

    if (load->vcpus != (1u << load->m->vm.conf.n_vcpus) - 1)
        return refuse(load, -EPROTO, "vCPU", "one is missing");
    if (!load->board)
        return refuse(load, -EPROTO, "board", "it is missing");
    for (unsigned i = 0; i < load->n_devices; i++)
        if (load->devices[i]) {
            label_of(load->m, load->devices[i], label);
            return refuse(load, -EPROTO, label, "it is missing");
        }
    return 0;
}

static int load_blocks(struct loading *load)
{
    struct state_file_block block;
    int r;

    while ((r = state_file_next(&load->source->reader, &block, load->err)) == 1) {
        r = load_block(load, &block);
        if (r < 0)
            return r;
    }
    return r < 0 ? r : check_complete(load);
}

int machine_state_load(struct machine *m, struct machine_state_source *source, struct err *err)
{
    struct loading load = {.m = m, .source = source, .err = err};
    struct cpuid_table has;

    cpuid_table_get(m->vm.vcpus[0], &has);
    int r = cpuid_table_check(&source->head.cpuid, &has, err);
    if (r < 0)
        return r;
    for (struct device *dev = m->vm.devices; dev && load.n_devices < DEVICES_MOST; dev = dev->next)
        load.devices[load.n_devices++] = dev;
    clock_set(&m->vm.clock, source->head.clock_ns);
    for (const struct attachment *a = m->attachments; a; a = a->next)
        virtio_pci_pause(a->dev); /* none begins before all are there */
    q35_hold_wires(m->board, true);
    r = load_blocks(&load);
    q35_hold_wires(m->board, false);
    if (r == 0)
        vm_state_loaded(&m->vm);
    for (const struct attachment *a = m->attachments; a; a = a->next)
        virtio_pci_resume(a->dev);
    m->vm.loaded = r == 0;
    return r;
}
