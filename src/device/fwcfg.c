#include "device/fwcfg.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#define PORT     0x510
#define PORT_DMA 0x514
#define DMA_SIZE 8

enum { REGION_PORTS, REGION_DMA };
enum { ID_TRADITIONAL = 1 << 0, ID_DMA = 1 << 1 };
enum { DMA_ERROR = 1 << 0, DMA_READ = 1 << 1, DMA_SKIP = 1 << 2, DMA_SELECT = 1 << 3, DMA_WRITE = 1 << 4 };

#define DMA_SIGNATURE UINT64_C(0x51454d5520434647) /* "QEMU CFG" */
#define N_ITEMS       (FWCFG_FIRST_FILE + FWCFG_MAX_FILES)
#define DIR_ENTRY     64

struct item {
    uint8_t *data;
    uint32_t size;
};

struct fwcfg {
    struct device dev;
    struct item items[N_ITEMS]; /* those of files from FWCFG_FIRST_FILE; data NULL where there is none */
    char names[FWCFG_MAX_FILES][FWCFG_NAME_SIZE];
    unsigned n_files;

    uint16_t key;
    uint32_t offset; /* in the item; may stand behind its end */
    uint32_t dma_high;
};

/* The guest's request in its memory; big-endian. */
struct dma_request {
    uint32_t control, length;
    uint64_t address;
};

static struct item current(const struct fwcfg *f)
{
    return f->key < N_ITEMS ? f->items[f->key] : (struct item){0};
}

static uint32_t left(const struct fwcfg *f)
{
    uint32_t size = current(f).size;
    return f->offset < size ? size - f->offset : 0;
}

static void advance(struct fwcfg *f, uint32_t n)
{
    f->offset = n > UINT32_MAX - f->offset ? UINT32_MAX : f->offset + n;
}

static void select_item(struct fwcfg *f, uint16_t key)
{
    f->key = key;
    f->offset = 0;
}

/* Behind its end an item reads as zeroes. */
static uint8_t read_byte(struct fwcfg *f)
{
    uint8_t val = left(f) ? current(f).data[f->offset] : 0;

    advance(f, 1);
    return val;
}

/* 0, or -errno where the guest's memory is none. */
static int dma_read(struct fwcfg *f, uint64_t address, uint32_t length)
{
    struct ram *ram = f->dev.env->ram;
    uint32_t n = left(f) < length ? left(f) : length;

    if (!ram_host(ram, address, length))
        return -EFAULT;
    int r = n ? ram_write(ram, address, current(f).data + f->offset, n) : 0;
    if (r == 0 && length > n)
        r = ram_zero(ram, address + n, length - n);
    advance(f, length);
    return r;
}

static void run_dma(struct fwcfg *f, uint64_t at)
{
    struct ram *ram = f->dev.env->ram;
    struct dma_request req;
    uint32_t result = 0;

    if (ram_read(ram, at, &req, sizeof(req)) < 0)
        return; /* nowhere to say so */
    uint32_t control = be32toh(req.control), length = be32toh(req.length);
    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    if (control & DMA_READ) {
        if (length && dma_read(f, be64toh(req.address), length) < 0)
            result = DMA_ERROR;
    } else if (control & DMA_WRITE) {
        result = DMA_ERROR;
    } else if (control & DMA_SKIP) {
        advance(f, length);
    }
    result = htobe32(result);
    if (ram_write(ram, at, &result, sizeof(result)) < 0)
        return;
}

static uint64_t fwcfg_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct fwcfg *f = (struct fwcfg *)dev;
    uint64_t val = 0;

    if (region == REGION_DMA) {
        uint64_t signature = htobe64(DMA_SIGNATURE);
        memcpy(&val, (uint8_t *)&signature + off, len);
        return val;
    }
    for (unsigned i = 0; i < len; i++) /* the selector cannot be read */
        val |= (uint64_t)(off + i == 1 ? read_byte(f) : 0) << (8 * i);
    return val;
}

static void fwcfg_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct fwcfg *f = (struct fwcfg *)dev;

    if (region == REGION_PORTS) {
        if (off == 0 && len == 2)
            select_item(f, (uint16_t)val);
        return;
    }
    if (off == 0 && len == 8) {
        f->dma_high = 0;
        run_dma(f, be64toh(val));
    } else if (off == 0 && len == 4) {
        f->dma_high = be32toh((uint32_t)val);
    } else if (off == 4 && len == 4) {
        uint64_t at = (uint64_t)f->dma_high << 32 | be32toh((uint32_t)val);
        f->dma_high = 0;
        run_dma(f, at);
    }
}

static int set_item(struct fwcfg *f, unsigned key, const void *data, uint32_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, size);
    free(f->items[key].data);
    f->items[key] = (struct item){.data = copy, .size = size};
    return 0;
}

/* The directory: a count, then size, key and name of each; big-endian. */
static int update_dir(struct fwcfg *f)
{
    uint8_t dir[4 + FWCFG_MAX_FILES * DIR_ENTRY] = {0};
    uint32_t count = htobe32(f->n_files);

    memcpy(dir, &count, 4);
    for (unsigned i = 0; i < f->n_files; i++) {
        uint8_t *e = dir + 4 + i * DIR_ENTRY;
        uint32_t size = htobe32(f->items[FWCFG_FIRST_FILE + i].size);
        uint16_t key = htobe16((uint16_t)(FWCFG_FIRST_FILE + i));
        memcpy(e, &size, 4);
        memcpy(e + 4, &key, 2);
        memcpy(e + 8, f->names[i], FWCFG_NAME_SIZE);
    }
    return set_item(f, FWCFG_FILE_DIR, dir, 4 + f->n_files * DIR_ENTRY);
}

int fwcfg_add_file(struct device *dev, const char *name, const void *data, uint32_t size, struct err *err)
{
    struct fwcfg *f = (struct fwcfg *)dev;

    if (strlen(name) >= FWCFG_NAME_SIZE)
        return err_set(err, -EINVAL, "fw_cfg file %s: name of %zu characters; must be below %d", name, strlen(name),
                       FWCFG_NAME_SIZE);
    for (unsigned i = 0; i < f->n_files; i++)
        if (strcmp(f->names[i], name) == 0)
            return err_set(err, -EEXIST, "fw_cfg file %s: is there already", name);
    if (f->n_files == FWCFG_MAX_FILES)
        return err_set(err, -ENOSPC, "fw_cfg file %s: more than %d files", name, FWCFG_MAX_FILES);
    int r = set_item(f, FWCFG_FIRST_FILE + f->n_files, data, size);
    if (r == 0) {
        memcpy(f->names[f->n_files++], name, strlen(name) + 1);
        r = update_dir(f);
    }
    return r < 0 ? err_set(err, r, "fw_cfg file %s: out of memory", name) : 0;
}

static void fwcfg_reset(struct device *dev)
{
    struct fwcfg *f = (struct fwcfg *)dev;

    select_item(f, 0);
    f->dma_high = 0;
}

/* Items come with the configuration; only where the guest stands is state. */
static int fwcfg_state(struct device *dev, struct stream *s)
{
    struct fwcfg *f = (struct fwcfg *)dev;

    stream_section(s, "fwcfg", 1);
    stream_u16(s, &f->key);
    stream_u32(s, &f->offset);
    stream_u32(s, &f->dma_high);
    return s->error;
}

static void fwcfg_close(struct device *dev)
{
    struct fwcfg *f = (struct fwcfg *)dev;

    for (unsigned i = 0; i < N_ITEMS; i++)
        free(f->items[i].data);
}

static int fwcfg_open(struct device *dev, const void *conf, struct err *err)
{
    struct fwcfg *f = (struct fwcfg *)dev;
    const uint16_t n_cpus = (uint16_t)((const struct fwcfg_conf *)conf)->n_cpus;
    const uint32_t id = ID_TRADITIONAL | ID_DMA;
    const uint64_t ram_size = dev->env->ram->size;

    int r = set_item(f, FWCFG_SIGNATURE, "QEMU", 4);
    if (r == 0)
        r = set_item(f, FWCFG_ID, &id, sizeof(id));
    if (r == 0)
        r = set_item(f, FWCFG_RAM_SIZE, &ram_size, sizeof(ram_size));
    if (r == 0)
        r = set_item(f, FWCFG_N_CPUS, &n_cpus, sizeof(n_cpus));
    if (r == 0)
        r = set_item(f, FWCFG_MAX_CPUS, &n_cpus, sizeof(n_cpus));
    if (r == 0)
        r = update_dir(f);
    if (r < 0) {
        fwcfg_close(dev);
        return err_set(err, r, "fw_cfg: out of memory");
    }
    r = device_map(dev, dev->env->pio, REGION_PORTS, PORT, 2, err);
    if (r == 0)
        r = device_map(dev, dev->env->pio, REGION_DMA, PORT_DMA, DMA_SIZE, err);
    if (r < 0)
        fwcfg_close(dev);
    return r;
}

const struct device_type fwcfg_type = {
    .name = "fwcfg",
    .size = sizeof(struct fwcfg),
    .open = fwcfg_open,
    .read = fwcfg_read,
    .write = fwcfg_write,
    .reset = fwcfg_reset,
    .state = fwcfg_state,
    .close = fwcfg_close,
};
