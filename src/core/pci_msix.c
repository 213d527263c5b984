#include "core/pci_msix.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/irqchip.h"

/* The capability: id, next, message control, table offset and BAR, pending bits' offset and BAR. */
enum { CAP_CONTROL = 2, CAP_TABLE = 4, CAP_PBA = 8, CAP_SIZE = 12 };
enum { CONTROL_MASKED = 1 << 14, CONTROL_ENABLE = 1 << 15 };
/* A table entry. */
enum { ENTRY_ADDR = 0, ENTRY_DATA = 8, ENTRY_CONTROL = 12 };
enum { ENTRY_MASKED = 1 };
#define MSI_ADDRESS 0xfee /* bits 31:20 (SDM Vol. 3A 11.11.1) */

/* As at power-on. */
static void mask_vectors(struct pci_msix *msix)
{
    memset(msix->table, 0, sizeof(msix->table));
    for (unsigned i = 0; i < msix->n; i++)
        msix->table[i * PCI_MSIX_ENTRY_SIZE + ENTRY_CONTROL] = ENTRY_MASKED;
}

int pci_msix_init(struct pci_msix *msix, struct pci_func *func, const struct msi_sink *sink, unsigned n, unsigned bar,
                  uint32_t table_off, uint32_t pba_off)
{
    *msix = (struct pci_msix){.func = func, .sink = sink, .n = n};
    if (n < 1 || n > PCI_MSIX_MAX)
        return -EINVAL;
    msix->cap = pci_func_add_cap(func, PCI_CAP_MSIX, CAP_SIZE);
    if (msix->cap < 0)
        return msix->cap;
    pthread_mutex_init(&msix->lock, NULL);
    mask_vectors(msix); /* what comes to a machine that runs is not reset first */
    pci_func_set(func, (unsigned)msix->cap + CAP_CONTROL, 2, n - 1, CONTROL_MASKED | CONTROL_ENABLE);
    pci_func_set(func, (unsigned)msix->cap + CAP_TABLE, 4, table_off | bar, 0);
    pci_func_set(func, (unsigned)msix->cap + CAP_PBA, 4, pba_off | bar, 0);
    return 0;
}

/* ---- wires ---- */

static void close_wires_locked(struct pci_msix *msix)
{
    const struct irqchip *chip = msix->sink->chip;

    for (unsigned i = 0; msix->wires && i < msix->n; i++)
        if (msix->wires[i].fd >= 0) {
            chip->wire_close(chip->opaque, msix->wires[i].wire, msix->wires[i].fd);
            close(msix->wires[i].fd);
            msix->wires[i].fd = -1;
        }
}

static bool open_wires_locked(struct pci_msix *msix)
{
    if (msix->wires || !msix->sink->chip)
        return msix->wires;
    msix->wires = calloc(msix->n, sizeof(*msix->wires));
    for (unsigned i = 0; msix->wires && i < msix->n; i++)
        msix->wires[i].fd = -1;
    return msix->wires;
}

static bool open_wire(const struct irqchip *chip, struct pci_msix_wire *w)
{
    *w = (struct pci_msix_wire){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (w->fd < 0)
        return false;
    w->wire = chip->wire_open(chip->opaque, w->fd);
    if (w->wire >= 0)
        return true;
    close(w->fd);
    w->fd = -1;
    return false;
}

/* False: there is no wire to be had, and the sink is the way. */
static bool send_by_wire_locked(struct pci_msix *msix, unsigned n, uint64_t addr, uint32_t data)
{
    const struct irqchip *chip = msix->sink->chip;
    const uint64_t one = 1;

    if (addr >> 20 != MSI_ADDRESS || !open_wires_locked(msix)) /* what is no message the sink knows */
        return false;
    struct pci_msix_wire *w = &msix->wires[n];
    if (w->fd < 0 && !open_wire(chip, w))
        return false;
    if (w->addr != addr || w->data != data) {
        if (chip->wire_set(chip->opaque, w->wire, addr, data) < 0)
            return false;
        w->addr = addr;
        w->data = data;
    }
    return write(w->fd, &one, sizeof(one)) == sizeof(one);
}

void pci_msix_fini(struct pci_msix *msix)
{
    close_wires_locked(msix);
    free(msix->wires);
    pthread_mutex_destroy(&msix->lock);
}

static bool vector_masked(const struct pci_msix *msix, unsigned n)
{
    return msix->table[n * PCI_MSIX_ENTRY_SIZE + ENTRY_CONTROL] & ENTRY_MASKED;
}

static bool may_send(const struct pci_msix *msix, unsigned n)
{
    return msix->enabled && !msix->masked && msix->master && !vector_masked(msix, n);
}

/* Under the lock, so that what is masked sends nothing any more. */
static void send_locked(struct pci_msix *msix, unsigned n)
{
    const uint8_t *entry = msix->table + (size_t)n * PCI_MSIX_ENTRY_SIZE;

    uint64_t addr = load_le64(entry + ENTRY_ADDR);
    uint32_t data = load_le32(entry + ENTRY_DATA);

    if (!send_by_wire_locked(msix, n, addr, data) && msix->sink->send)
        msix->sink->send(msix->sink->opaque, addr, data);
}

static void send_pending_locked(struct pci_msix *msix)
{
    for (unsigned word = 0; word < ARRAY_SIZE(msix->pending); word++)
        for (uint64_t bits = msix->pending[word]; bits; bits &= bits - 1) {
            unsigned n = word * 64 + (unsigned)__builtin_ctzll(bits);
            if (!may_send(msix, n))
                continue;
            msix->pending[word] &= ~(bits & -bits);
            send_locked(msix, n);
        }
}

bool pci_msix_send(struct pci_msix *msix, unsigned n)
{
    pthread_mutex_lock(&msix->lock);
    bool enabled = msix->enabled;
    if (enabled && n < msix->n) {
        if (may_send(msix, n))
            send_locked(msix, n);
        else
            msix->pending[n / 64] |= UINT64_C(1) << n % 64;
    }
    pthread_mutex_unlock(&msix->lock);
    return enabled;
}

bool pci_msix_enabled(struct pci_msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    bool enabled = msix->enabled;
    pthread_mutex_unlock(&msix->lock);
    return enabled;
}

void pci_msix_written(struct pci_msix *msix)
{
    uint32_t control = pci_func_get(msix->func, (unsigned)msix->cap + CAP_CONTROL, 2);
    uint32_t command = pci_func_get(msix->func, PCI_COMMAND, 2);

    pthread_mutex_lock(&msix->lock);
    msix->enabled = control & CONTROL_ENABLE;
    msix->masked = control & CONTROL_MASKED;
    msix->master = command & PCI_COMMAND_MASTER;
    send_pending_locked(msix);
    pthread_mutex_unlock(&msix->lock);
}

uint64_t pci_msix_table_read(struct pci_msix *msix, uint64_t off, unsigned len)
{
    uint64_t val = 0, size = PCI_MSIX_TABLE_SIZE(msix->n);

    if (off >= size || len > size - off)
        return ones_mask(len);
    pthread_mutex_lock(&msix->lock);
    memcpy(&val, msix->table + off, len);
    pthread_mutex_unlock(&msix->lock);
    return val;
}

void pci_msix_table_write(struct pci_msix *msix, uint64_t off, unsigned len, uint64_t val)
{
    uint64_t size = PCI_MSIX_TABLE_SIZE(msix->n);

    if (off >= size || len > size - off)
        return;
    pthread_mutex_lock(&msix->lock);
    for (unsigned i = 0; i < len; i++) {
        uint64_t at = (off + i) % PCI_MSIX_ENTRY_SIZE;
        uint8_t writable = at < ENTRY_CONTROL ? (at ? 0xff : 0xfc) : at == ENTRY_CONTROL ? ENTRY_MASKED : 0;
        msix->table[off + i] = (uint8_t)(val >> (8 * i)) & writable;
    }
    send_pending_locked(msix);
    pthread_mutex_unlock(&msix->lock);
}

uint64_t pci_msix_pba_read(struct pci_msix *msix, uint64_t off, unsigned len)
{
    uint64_t val = 0, size = align_up(msix->n, 64) / 8;

    if (off >= size || len > size - off)
        return ones_mask(len);
    pthread_mutex_lock(&msix->lock);
    memcpy(&val, (const uint8_t *)msix->pending + off, len);
    pthread_mutex_unlock(&msix->lock);
    return val;
}

void pci_msix_reset(struct pci_msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    close_wires_locked(msix);
    mask_vectors(msix);
    memset(msix->pending, 0, sizeof(msix->pending));
    pthread_mutex_unlock(&msix->lock);
    pci_msix_written(msix);
}

/* Bits of vectors that are not there would point beyond the table's end. */
static void clip_pending(struct pci_msix *msix)
{
    for (unsigned i = msix->n; i < PCI_MSIX_MAX; i++)
        msix->pending[i / 64] &= ~(UINT64_C(1) << i % 64);
}

void pci_msix_state(struct pci_msix *msix, struct stream *s)
{
    pthread_mutex_lock(&msix->lock);
    stream_bytes(s, msix->table, PCI_MSIX_TABLE_SIZE(msix->n));
    for (unsigned i = 0; i < ARRAY_SIZE(msix->pending); i++)
        stream_u64(s, &msix->pending[i]);
    clip_pending(msix);
    pthread_mutex_unlock(&msix->lock);
    if (s->loading)
        pci_msix_written(msix);
}
