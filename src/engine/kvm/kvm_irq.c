/*
 * The kernel's interrupt controllers (Linux, Documentation/virt/kvm/api.rst): local APICs alone ("split") or IOAPIC and PICs too; the table of what
 * each of its inputs does; and eventfds that are interrupts or the guest's writes.
 *
 * Inputs ("GSIs"): from 0 the IOAPIC's pins, where split as the messages of level-triggered entries, so that the kernel knows whose EOI to tell of;
 * then the PICs'; then wires, one each for a device's message.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/log.h"

#define GSI_PIC            IRQCHIP_IOAPIC_PINS
#define GSI_WIRES          (GSI_PIC + 16)
#define INPUTS_MOST        1024
#define LAPIC_ISR          0x100
#define LAPIC_IRR          0x200
#define MSR_TSC_DEADLINE   0x6e0u
#define SUPPRESS_BROADCAST (1u << 2) /* KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST, of newer headers */

_Static_assert(IRQCHIP_LAPIC_SIZE == KVM_APIC_REG_SIZE, "as much as KVM has of a page");

static int vm_ioctl(struct engine *e, unsigned long request, void *arg)
{
    int r = ioctl(e->vm, request, arg);
    return r < 0 ? -errno : r;
}

static int has(const struct engine *e, int capability)
{
    int r = ioctl(e->kvm, KVM_CHECK_EXTENSION, (unsigned long)capability);
    return r > 0 ? r : 0;
}

/* ---- the table of inputs ---- */

static int commit_locked(struct engine *e)
{
    struct kvm_irq_routing *table = calloc(1, sizeof(*table) + e->n_inputs * sizeof(table->entries[0]));

    if (!table)
        return -ENOMEM;
    for (unsigned i = 0; i < e->n_inputs; i++)
        if (e->inputs[i].type)
            table->entries[table->nr++] = e->inputs[i];
    int r = vm_ioctl(e, KVM_SET_GSI_ROUTING, table);
    free(table);
    return r;
}

static int set_message_locked(struct engine *e, unsigned gsi, uint64_t addr, uint32_t data)
{
    struct kvm_irq_routing_entry *entry = &e->inputs[gsi], old = *entry;
    uint32_t type = addr ? KVM_IRQ_ROUTING_MSI : 0;

    if (old.type == type && (!type || (old.u.msi.address_lo == (uint32_t)addr && old.u.msi.data == data)))
        return 0;
    *entry = (struct kvm_irq_routing_entry){.gsi = gsi, .type = type};
    entry->u.msi.address_lo = (uint32_t)addr;
    entry->u.msi.address_hi = (uint32_t)(addr >> 32);
    entry->u.msi.data = data;
    int r = commit_locked(e);
    if (r < 0)
        *entry = old;
    return r;
}

static void route(void *opaque, unsigned pin, uint64_t addr, uint32_t data)
{
    struct engine *e = opaque;

    pthread_mutex_lock(&e->irq_lock);
    int r = set_message_locked(e, pin, addr, data);
    pthread_mutex_unlock(&e->irq_lock);
    if (r < 0)
        log_error("KVM_SET_GSI_ROUTING: %s", strerror(-r));
}

static void chip_inputs(struct engine *e)
{
    for (unsigned i = 0; i < GSI_WIRES; i++) {
        unsigned pic = i - GSI_PIC, chip = i < GSI_PIC ? KVM_IRQCHIP_IOAPIC
                                           : pic < 8   ? KVM_IRQCHIP_PIC_MASTER
                                                       : KVM_IRQCHIP_PIC_SLAVE;
        e->inputs[i] = (struct kvm_irq_routing_entry){.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP};
        e->inputs[i].u.irqchip.irqchip = chip;
        e->inputs[i].u.irqchip.pin = i < GSI_PIC ? i : pic & 7;
    }
}

/* ---- messages and lines ---- */

static bool send(void *opaque, uint64_t addr, uint32_t data)
{
    struct engine *e = opaque;
    struct kvm_msi msi = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};

    return vm_ioctl(e, KVM_SIGNAL_MSI, &msi) > 0;
}

static void set_line(struct engine *e, unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    (void)vm_ioctl(e, KVM_IRQ_LINE, &line);
}

static void ioapic_line(void *opaque, unsigned pin, bool level)
{
    set_line(opaque, pin, level);
}

static void pic_line(void *opaque, unsigned input, bool level)
{
    set_line(opaque, GSI_PIC + input, level);
}

/* ---- wires ---- */

static int irqfd(struct engine *e, unsigned gsi, int fd, uint32_t flags)
{
    struct kvm_irqfd arg = {.fd = (uint32_t)fd, .gsi = gsi, .flags = flags};
    return vm_ioctl(e, KVM_IRQFD, &arg);
}

static int wire_open(void *opaque, int fd)
{
    struct engine *e = opaque;
    unsigned gsi = GSI_WIRES;

    pthread_mutex_lock(&e->irq_lock);
    while (gsi < e->n_inputs && e->wired[gsi])
        gsi++;
    int r = gsi < e->n_inputs ? irqfd(e, gsi, fd, 0) : -ENOSPC;
    if (r == 0)
        e->wired[gsi] = true;
    pthread_mutex_unlock(&e->irq_lock);
    return r < 0 ? r : (int)gsi;
}

static int wire_set(void *opaque, int wire, uint64_t addr, uint32_t data)
{
    struct engine *e = opaque;

    pthread_mutex_lock(&e->irq_lock);
    int r = set_message_locked(e, (unsigned)wire, addr, data);
    pthread_mutex_unlock(&e->irq_lock);
    return r;
}

static void wire_close(void *opaque, int wire, int fd)
{
    struct engine *e = opaque;

    pthread_mutex_lock(&e->irq_lock);
    (void)irqfd(e, (unsigned)wire, fd, KVM_IRQFD_FLAG_DEASSIGN);
    (void)set_message_locked(e, (unsigned)wire, 0, 0);
    e->wired[wire] = false;
    pthread_mutex_unlock(&e->irq_lock);
}

static int ring(void *opaque, uint64_t gpa, unsigned len, int fd, bool on)
{
    struct engine *e = opaque;
    struct kvm_ioeventfd arg = {
        .addr = gpa, .len = e->any_length ? 0 : len, .fd = fd, .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};

    return vm_ioctl(e, KVM_IOEVENTFD, &arg);
}

/* ---- registers ---- */

static int one_msr(struct engine *e, unsigned cpu, unsigned long request, uint32_t msr, uint64_t *val)
{
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } m = {.msrs.nmsrs = 1};

    m.msrs.entries[0].index = msr;
    m.msrs.entries[0].data = *val;
    int r = ioctl(e->vcpus[cpu], request, &m);
    *val = m.msrs.entries[0].data;
    return r == 1 ? 0 : r < 0 ? -errno : -EINVAL;
}

/* An INIT or a start-up IPI that waits in the kernel is taken first, as it would be before the next instruction. */
static int settle(struct engine *e, unsigned cpu)
{
    struct kvm_mp_state state;
    return ioctl(e->vcpus[cpu], KVM_GET_MP_STATE, &state) < 0 ? -errno : 0;
}

static int lapic_get(void *opaque, unsigned cpu, struct irqchip_lapic *lapic)
{
    struct engine *e = opaque;
    struct kvm_sregs2 sregs;
    int r = settle(e, cpu);

    if (r == 0 && (ioctl(e->vcpus[cpu], KVM_GET_SREGS2, &sregs) < 0 ||
                   ioctl(e->vcpus[cpu], KVM_GET_LAPIC, (struct kvm_lapic_state *)lapic->page) < 0))
        r = -errno;
    if (r < 0)
        return r;
    lapic->base = sregs.apic_base;
    lapic->deadline = 0;
    (void)one_msr(e, cpu, KVM_GET_MSRS, MSR_TSC_DEADLINE, &lapic->deadline); /* 0 where there is none */
    return 0;
}

/* The base first: it says how the page is to be read. */
static int lapic_put(void *opaque, unsigned cpu, const struct irqchip_lapic *lapic)
{
    struct engine *e = opaque;
    struct kvm_sregs2 sregs;
    uint64_t deadline = lapic->deadline;

    if (ioctl(e->vcpus[cpu], KVM_GET_SREGS2, &sregs) < 0)
        return -errno;
    sregs.apic_base = lapic->base;
    if (ioctl(e->vcpus[cpu], KVM_SET_SREGS2, &sregs) < 0 ||
        ioctl(e->vcpus[cpu], KVM_SET_LAPIC, (const struct kvm_lapic_state *)lapic->page) < 0)
        return -errno;
    if (deadline)
        return one_msr(e, cpu, KVM_SET_MSRS, MSR_TSC_DEADLINE, &deadline);
    return 0;
}

bool kvm_irq_unack(struct engine_vcpu *v, uint8_t vector)
{
    struct kvm_lapic_state lapic;
    size_t at = (size_t)16 * (vector >> 5);
    uint8_t *isr = (uint8_t *)lapic.regs + LAPIC_ISR + at, *irr = (uint8_t *)lapic.regs + LAPIC_IRR + at;
    uint32_t bit = 1u << (vector & 31);

    if (ioctl(v->fd, KVM_GET_LAPIC, &lapic) < 0 || !(load_le32(isr) & bit))
        return false;
    store_le32(isr, load_le32(isr) & ~bit);
    store_le32(irr, load_le32(irr) | bit);
    return ioctl(v->fd, KVM_SET_LAPIC, &lapic) == 0;
}

static int ioapic_get(void *opaque, struct irqchip_ioapic *out)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    int r = vm_ioctl(opaque, KVM_GET_IRQCHIP, &chip);

    if (r < 0)
        return r;
    *out = (struct irqchip_ioapic){
        .id = chip.chip.ioapic.id << 24, .select = (uint8_t)chip.chip.ioapic.ioregsel, .lines = chip.chip.ioapic.irr};
    for (unsigned i = 0; i < IRQCHIP_IOAPIC_PINS; i++)
        out->rte[i] = chip.chip.ioapic.redirtbl[i].bits;
    return 0;
}

static int ioapic_put(void *opaque, const struct irqchip_ioapic *ioapic)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    int r = vm_ioctl(opaque, KVM_GET_IRQCHIP, &chip); /* its address */

    if (r < 0)
        return r;
    chip.chip.ioapic.id = ioapic->id >> 24;
    chip.chip.ioapic.ioregsel = ioapic->select;
    chip.chip.ioapic.irr = ioapic->lines;
    for (unsigned i = 0; i < IRQCHIP_IOAPIC_PINS; i++)
        chip.chip.ioapic.redirtbl[i].bits = ioapic->rte[i];
    return vm_ioctl(opaque, KVM_SET_IRQCHIP, &chip);
}

static int pic_get(void *opaque, bool slave, struct irqchip_pic *out)
{
    struct kvm_irqchip chip = {.chip_id = slave ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER};
    const struct kvm_pic_state *p = &chip.chip.pic;
    int r = vm_ioctl(opaque, KVM_GET_IRQCHIP, &chip);

    if (r < 0)
        return r;
    *out = (struct irqchip_pic){
        .lines = p->last_irr,
        .irr = p->irr,
        .imr = p->imr,
        .isr = p->isr,
        .elcr = p->elcr,
        .highest = p->priority_add,
        .base = p->irq_base,
        .step = p->init_state,
        .read_isr = p->read_reg_select,
        .poll = p->poll,
        .special_mask = p->special_mask,
        .rotate_on_aeoi = p->rotate_on_auto_eoi,
        .aeoi = p->auto_eoi,
        .sfnm = p->special_fully_nested_mode,
        .ic4 = p->init4,
    };
    return 0;
}

static int pic_put(void *opaque, bool slave, const struct irqchip_pic *pic)
{
    struct kvm_irqchip chip = {.chip_id = slave ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER};
    struct kvm_pic_state *p = &chip.chip.pic;
    int r = vm_ioctl(opaque, KVM_GET_IRQCHIP, &chip); /* elcr_mask */

    if (r < 0)
        return r;
    p->last_irr = pic->lines;
    p->irr = pic->irr;
    p->imr = pic->imr;
    p->isr = pic->isr;
    p->elcr = pic->elcr;
    p->priority_add = pic->highest;
    p->irq_base = pic->base;
    p->init_state = pic->step;
    p->read_reg_select = pic->read_isr;
    p->poll = pic->poll;
    p->special_mask = pic->special_mask;
    p->rotate_on_auto_eoi = pic->rotate_on_aeoi;
    p->auto_eoi = pic->aeoi;
    p->special_fully_nested_mode = pic->sfnm;
    p->init4 = pic->ic4;
    return vm_ioctl(opaque, KVM_SET_IRQCHIP, &chip);
}

/* ---- what is chosen, and made ---- */

/* What both kinds need, besides their own. */
static const struct {
    int capability;
    const char *name;
} needed[] = {
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER"},
};

static const char *lacking(const struct engine *e, enum engine_irqchip which)
{
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (!has(e, needed[i].capability))
            return needed[i].name;
    if (which == ENGINE_IRQCHIP_KERNEL)
        return has(e, KVM_CAP_IRQCHIP) ? NULL : "KVM_CAP_IRQCHIP";
    return has(e, KVM_CAP_SPLIT_IRQCHIP) ? NULL : "KVM_CAP_SPLIT_IRQCHIP";
}

static int make(struct engine *e, bool whole, struct err *err)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IRQCHIP_IOAPIC_PINS}};
    struct kvm_enable_cap x2apic = {.cap = KVM_CAP_X2APIC_API, .args = {KVM_X2APIC_API_USE_32BIT_IDS}};
    int r;

    if (whole)
        r = kvm_vm_ioctl(e->vm, KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP", NULL, err);
    else
        r = kvm_vm_ioctl(e->vm, KVM_ENABLE_CAP, "KVM_CAP_SPLIT_IRQCHIP", &split, err);
    if (r < 0)
        return r;
    if (!whole)
        x2apic.args[0] |= (unsigned)has(e, KVM_CAP_X2APIC_API) & SUPPRESS_BROADCAST;
    return kvm_vm_ioctl(e->vm, KVM_ENABLE_CAP, "KVM_CAP_X2APIC_API", &x2apic, err);
}

int kvm_irq_open(struct engine *e, enum engine_irqchip which, struct err *err)
{
    const char *lacks = lacking(e, which);

    e->any_length = has(e, KVM_CAP_IOEVENTFD_NO_LENGTH);
    if (has(e, KVM_CAP_IOEVENTFD))
        e->doorbells = (struct doorbells){.opaque = e, .set = ring};
    if (which == ENGINE_IRQCHIP_USER || (which == ENGINE_IRQCHIP_AUTO && lacks))
        return 0;
    if (lacks)
        return err_set(err, -EOPNOTSUPP, KVM_PROBE_DEVICE ": no interrupt controllers in this kernel: it lacks %s",
                       lacks);
    bool whole = which == ENGINE_IRQCHIP_KERNEL;
    unsigned most = (unsigned)has(e, KVM_CAP_IRQ_ROUTING);
    e->n_inputs = most < INPUTS_MOST ? most : INPUTS_MOST;
    e->inputs = calloc(e->n_inputs, sizeof(*e->inputs));
    e->wired = calloc(e->n_inputs, sizeof(*e->wired));
    if (!e->inputs || !e->wired)
        return err_set(err, -ENOMEM, "engine: out of memory");
    int r = e->n_inputs > GSI_WIRES ? make(e, whole, err)
                                    : err_set(err, -EOPNOTSUPP, KVM_PROBE_DEVICE ": only %u interrupt routes", most);
    if (r < 0)
        return r;
    if (whole) {
        chip_inputs(e);
        r = commit_locked(e);
        if (r < 0)
            return err_set(err, r, KVM_PROBE_DEVICE ": KVM_SET_GSI_ROUTING: %s", strerror(-r));
    }
    e->has_lapics = true;
    e->irqchip = (struct irqchip){
        .opaque = e,
        .whole = whole,
        .lapic_get = lapic_get,
        .lapic_put = lapic_put,
        .send = send,
        .route = route,
        .ioapic_line = ioapic_line,
        .pic_line = pic_line,
        .ioapic_get = ioapic_get,
        .ioapic_put = ioapic_put,
        .pic_get = pic_get,
        .pic_put = pic_put,
        .wire_open = wire_open,
        .wire_set = wire_set,
        .wire_close = wire_close,
    };
    return 0;
}

void kvm_irq_close(struct engine *e)
{
    free(e->inputs);
    free(e->wired);
}
