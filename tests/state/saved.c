#include "state/saved.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/machine.h"

#define RAM_BYTES (4 * MIB)
#define LOAD      0x100000u
#define DISK_SIZE 65536
#define MOMENT    INT64_C(3000000000) /* VM time at which things are set up */

/* A multiboot kernel: an ELF32 file of one segment, whose code counts at 2 MiB. */
static const uint8_t code[] = {0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8};

static int make_kernel(void)
{
    uint8_t file[52 + 32 + 12 + sizeof(code)] = {0x7f, 'E', 'L', 'F', 1, 1, 1};
    const uint32_t magic = 0x1badb002, entry = LOAD + 52 + 32 + 12;
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    store_le16(file + 16, 2);
    store_le16(file + 18, 3);
    store_le32(file + 20, 1);
    store_le32(file + 24, entry);
    store_le32(file + 28, 52);
    store_le16(file + 40, 52);
    store_le16(file + 42, 32);
    store_le16(file + 44, 1);
    const uint32_t segment[] = {1, 0, LOAD, LOAD, sizeof(file), sizeof(file), 7, 0x1000};
    memcpy(file + 52, segment, sizeof(segment));
    const uint32_t header[] = {magic, 0, -magic};
    memcpy(file + 84, header, sizeof(header));
    memcpy(file + 96, code, sizeof(code));
    if (fd < 0 || write(fd, file, sizeof(file)) != sizeof(file))
        abort();
    return fd;
}

static int make_disk(void)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0)
        abort();
    return fd;
}

static struct machine *try_machine(const struct engine_type *engine, struct machine_state_source *source,
                                   int64_t timeout_ns, struct err *err)
{
    char kernel[64], disk[96];
    const struct machine_attach attach[] = {{"disk", disk}, {"port", "name=one,none"}, {"rng", ""}};
    int kernel_fd = make_kernel(), disk_fd = make_disk();
    const struct machine_conf conf = {
        .engine = engine,
        .load = source,
        .kernel = kernel,
        .ram_size = RAM_BYTES,
        .n_cpus = source ? source->head.n_cpus : SAVED_CPUS,
        .cpu = source ? source->cpu : 0,
        .debug_exit = true,
        .timeout_ns = timeout_ns,
        .attach = attach,
        .n_attach = ARRAY_SIZE(attach),
    };
    struct machine *m = NULL;

    snprintf(kernel, sizeof(kernel), "/proc/self/fd/%d", kernel_fd);
    snprintf(disk, sizeof(disk), "/proc/self/fd/%d,format=raw,threads", disk_fd);
    int r =
        source && source->head.ram_size != RAM_BYTES ? err_set(err, -1, "another size") : machine_open(&m, &conf, err);
    close(kernel_fd);
    close(disk_fd);
    return r == 0 ? m : NULL;
}

struct machine *saved_machine(const struct engine_type *engine, struct machine_state_source *source, int64_t timeout_ns)
{
    struct err err;
    struct machine *m = try_machine(engine, source, timeout_ns, &err);

    if (!m) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    return m;
}

/* ---- a driver's work ---- */

static void out8(struct machine *m, uint16_t port, uint8_t val)
{
    bus_access(&m->vm.pio, port, &val, 1, true);
}

static void out16(struct machine *m, uint16_t port, uint16_t val)
{
    bus_access(&m->vm.pio, port, &val, 2, true);
}

static void put32(struct bus *bus, uint64_t addr, uint32_t val)
{
    bus_access(bus, addr, &val, 4, true);
}

static void stir_interrupts(struct machine *m)
{
    static const uint8_t icw[][2] = {{0x11, 0x11}, {0x30, 0x38}, {4, 2}, {1, 1}, {0xb8, 0xff}};
    struct bus *mmio = &m->vm.mmio;

    for (unsigned i = 0; i < ARRAY_SIZE(icw); i++) {
        out8(m, i ? 0x21 : 0x20, icw[i][0]);
        out8(m, i ? 0xa1 : 0xa0, icw[i][1]);
    }
    for (uint32_t pin = 0; pin < 24; pin++) {
        put32(mmio, 0xfec00000, 0x10 + 2 * pin);
        put32(mmio, 0xfec00010, (pin >= 16 ? 0xa000u : 0) | (0x40 + pin));
    }
    for (unsigned i = 0; i < m->vm.conf.n_vcpus; i++) {
        struct bus *bus = &m->vm.vcpus[i]->mmio;
        put32(bus, 0xfee000f0, 0x1ff);
        put32(bus, 0xfee00320, 0x20000 | 0xe0); /* the timer, periodic */
        put32(bus, 0xfee003e0, 3);
        put32(bus, 0xfee00380, 1000000 + i);
    }
}

static void stir_timers(struct machine *m)
{
    struct bus *mmio = &m->vm.mmio;

    out8(m, 0x43, 0x34); /* PIT: channel 0, rate generator */
    out8(m, 0x40, 0x00);
    out8(m, 0x40, 0x40);
    out8(m, 0x43, 0xb0);
    out8(m, 0x42, 0x12); /* halfway */
    put32(mmio, 0xfed00100, 0x0004 | 0x0008 | 20u << 9 | 0x40);
    put32(mmio, 0xfed00108, 70000);
    put32(mmio, 0xfed00120, 0x0006 | 21u << 9); /* level */
    put32(mmio, 0xfed00128, 400000000);
    put32(mmio, 0xfed00010, 1);
    out8(m, 0x70, 0x0b); /* RTC: periodic and alarm */
    out8(m, 0x71, 0x62);
    out16(m, 0x602, 0x0101); /* PM timer's overflow, power button */
}

static void stir_others(struct machine *m)
{
    uint32_t address = 0x8000f840;

    out8(m, 0x3fb, 0x03); /* serial: 8 bits, FIFOs, interrupts */
    out8(m, 0x3fa, 0x01);
    out8(m, 0x3f9, 0x0b);
    out8(m, 0x3ff, 0x5a);
    out8(m, 0x64, 0x60); /* keyboard: a command byte */
    out8(m, 0x60, 0x47);
    out8(m, 0x60, 0xf2);
    out16(m, 0x510, 0x0005); /* fw_cfg */
    out8(m, 0x92, 0x02);
    bus_access(&m->vm.pio, 0xcf8, &address, 4, true);
}

void saved_stir(struct machine *m)
{
    struct err err;

    for (struct device *dev = m->vm.devices; dev; dev = dev->next)
        device_reset(dev);
    if (m->vm.boot(&m->vm, &err) < 0)
        abort();
    clock_set(&m->vm.clock, MOMENT);
    stir_interrupts(m);
    stir_timers(m);
    stir_others(m);
    machine_press_power(m);
    vcpu_port_raise(&m->vm.vcpus[0]->port, PIN_NMI);
    atomic_store(&m->vm.vcpus[1]->port.tsc_offset, 12345);
    clock_set(&m->vm.clock, MOMENT + 1234567);
}

/* ---- states ---- */

void saved_take(struct machine *m, struct saved *out)
{
    struct state_file_reader reader;
    struct state_file_block block;
    struct err err;
    int fd = memfd_create("state", MFD_CLOEXEC);

    *out = (struct saved){0};
    machine_pause(m, "a test");
    if (fd < 0 || machine_state_save(m, fd, NULL, &err) < 0 || lseek(fd, 0, SEEK_SET) != 0 ||
        state_file_open(&reader, fd, "state", &err) < 0)
        abort();
    machine_resume(m);
    while (state_file_next(&reader, &block, &err) == 1 && out->n < SAVED_BLOCKS_MOST) {
        struct saved_block *to = &out->blocks[out->n++];
        *to = (struct saved_block){block.kind, block.number, malloc(block.len ? block.len : 1), block.len};
        memcpy(to->data, block.data, block.len);
    }
    state_file_close(&reader);
    close(fd);
}

void saved_free(struct saved *s)
{
    for (unsigned i = 0; i < s->n; i++)
        free(s->blocks[i].data);
    s->n = 0;
}

int saved_file(const struct saved *s)
{
    struct state_file_writer w;
    int fd = memfd_create("state", MFD_CLOEXEC);
    int r = fd < 0 ? -1 : state_file_begin(&w, fd, 1);

    for (unsigned i = 0; r == 0 && i < s->n; i++)
        r = state_file_put(&w, s->blocks[i].kind, s->blocks[i].number, s->blocks[i].data, s->blocks[i].len);
    if (r == 0)
        r = state_file_end(&w);
    if (r < 0)
        abort();
    return fd;
}

int saved_load(int fd, const struct engine_type *engine, int64_t timeout_ns, struct machine **m, struct err *err)
{
    struct machine_state_source source;
    char path[64];

    *m = NULL;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int r = machine_state_open(&source, path, err);
    if (r < 0)
        return r;
    *m = try_machine(engine, &source, timeout_ns, err);
    r = *m ? machine_load(*m, err) : -EPROTO;
    machine_state_close(&source);
    if (r < 0) {
        machine_close(*m);
        *m = NULL;
    }
    return r;
}
