/*
 * vsock between a guest that sends any packets and host programs that do anything. The input is records of 8 bytes: what happens, two small
 * choices, a length, and a value. Ports are few, so that packets meet connections.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/vsock_impl.h"
#include "fuzz.h"
#include "virtio/driver.h"

#define CID     3
#define PORT    80U /* that a host program listens on */
#define HOSTS   6
#define N_RX    16
#define RX_SIZE 600
#define RECORD  8
#define RECORDS 400

enum {
    GUEST_PACKET,
    GUEST_RECEIVE,
    HOST_CONNECT,
    HOST_WRITE,
    HOST_READ,
    HOST_SHUTDOWN,
    HOST_CLOSE,
    HOST_ACCEPT,
    N_KINDS
};

static struct vboard board;
static struct driver driver;
static char dir[] = "/tmp/vireo-fuzz-XXXXXX", path[64], port_path[80];
static int listener, hosts[HOSTS];
static uint64_t tx, rx;
static uint32_t last_port; /* of the host, in what the guest received last */
static int slots[VIRTQ_SIZE_MAX];

static void clean_up(void)
{
    driver_close(&driver);
    vboard_close(&board);
    unlink(port_path);
    rmdir(dir);
}

static int open_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir))
        abort();
    snprintf(path, sizeof(path), "%s/v", dir);
    snprintf(port_path, sizeof(port_path), "%s_%u", path, PORT);
    memcpy(addr.sun_path, port_path, strlen(port_path) + 1);
    listener = open_socket();
    if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 2) < 0)
        abort();
    for (unsigned i = 0; i < HOSTS; i++)
        hosts[i] = -1;
    vboard_open(&board);
    tx = vboard_alloc(&board, 64 * KIB, 16);
    rx = vboard_alloc(&board, (uint64_t)N_RX * 1024, 16);
    driver_open(&driver, &board, &virtio_vsock_type,
                &(struct virtio_vsock_conf){.cid = CID, .path = path, .connections = 5, .patience_ns = 2 * NS_PER_MS});
    atexit(clean_up);
    return 0;
}

static void give_rx(int slot)
{
    const struct driver_buf buf = {.gpa = rx + 1024u * (unsigned)slot, .len = RX_SIZE, .write = true};
    int id = driver_add(&driver.queues[0], &buf, 1);

    if (id >= 0)
        slots[id] = slot;
}

/* Whatever is there; a packet must be whole, and from a host to this guest. */
static void guest_receive(void)
{
    struct vsock_header h;
    unsigned id;
    uint32_t len;

    while (driver_get(&driver.queues[0], &id, &len)) {
        memcpy(&h, vboard_at(&board, rx + 1024u * (unsigned)slots[id]), sizeof(h));
        if (len < sizeof(h) || len > RX_SIZE || h.len != len - sizeof(h) || h.dst_cid != CID ||
            h.op < VSOCK_OP_REQUEST || h.op > VSOCK_OP_CREDIT_REQUEST)
            abort();
        last_port = h.src_port;
        give_rx(slots[id]);
    }
    driver_kick(&driver.queues[0]);
}

static void guest_packet(const uint8_t *r)
{
    static const uint32_t lens[] = {0, 1, 100, 4096, 60000, 65536 - sizeof(struct vsock_header), UINT32_MAX};
    uint32_t value = load_le32(r + 4), len = lens[r[3] % ARRAY_SIZE(lens)];
    struct vsock_header h = {.src_cid = r[2] & 0x80 ? value : CID,
                             .dst_cid = r[2] & 0x40 ? value : VSOCK_HOST_CID,
                             .src_port = r[2] & 1 ? 52 : 1000 + (r[2] >> 1 & 1),
                             .dst_port = r[2] & 4 ? last_port : PORT + (r[2] >> 3 & 1),
                             .len = len,
                             .type = r[2] & 0x20 ? (uint16_t)value : VSOCK_TYPE_STREAM,
                             .op = r[1] & 0xf0 ? r[1] : r[1] & 7,
                             .flags = value & 3,
                             .buf_alloc = value,
                             .fwd_cnt = r[2] & 0x10 ? value >> 8 : 0};
    uint32_t there = len == UINT32_MAX ? 10 : len;
    const struct driver_buf bufs[2] = {{.gpa = tx, .len = sizeof(h)}, {.gpa = tx + sizeof(h), .len = there}};
    unsigned id;
    uint32_t written;

    memcpy(vboard_at(&board, tx), &h, sizeof(h));
    if (driver_add(&driver.queues[1], bufs, there ? 2 : 1) >= 0)
        driver_kick(&driver.queues[1]);
    vboard_drain(&board);
    while (driver_get(&driver.queues[1], &id, &written))
        if (written)
            abort();
}

static void host_connect(int *fd, const uint8_t *r)
{
    static const char *const lines[] = {"CONNECT 52\n", "CONNECT 1000\n", "CONNECT 52\nearly",
                                        "CONNECT ",     "52\n",           "CONNECT 4294967296\n"};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *line = lines[r[2] % ARRAY_SIZE(lines)];

    if (*fd >= 0)
        return;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    *fd = open_socket();
    if (connect(*fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || write(*fd, line, strlen(line)) < 0)
        return;
}

static void host_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void host_move(int *fd, const uint8_t *r)
{
    static uint8_t buf[65536];
    size_t len = 1 + load_le16(r + 4);
    ssize_t n = 0;

    if (r[0] % N_KINDS == HOST_WRITE)
        n = write(*fd, buf, len);
    else
        n = read(*fd, buf, len);
    (void)n; /* whatever comes of it */
}

static void happen(const uint8_t *r)
{
    int *fd = &hosts[r[1] % HOSTS];

    switch (r[0] % N_KINDS) {
    case GUEST_PACKET:
        guest_packet(r);
        break;
    case GUEST_RECEIVE:
        guest_receive();
        break;
    case HOST_CONNECT:
        host_connect(fd, r);
        break;
    case HOST_WRITE:
    case HOST_READ:
        host_move(fd, r);
        break;
    case HOST_SHUTDOWN:
        shutdown(*fd, r[2] % 3);
        break;
    case HOST_CLOSE:
        host_close(fd);
        break;
    default:
        if (*fd < 0)
            *fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        break;
    }
    vboard_drain(&board);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    driver_init(&driver, data[0] & 1 ? DRIVER_ALL : DRIVER_ALL & ~VIRTIO_F_RING_PACKED);
    for (int i = 0; i < (data[0] & 2 ? N_RX : 1); i++)
        give_rx(i);
    driver_kick(&driver.queues[0]);
    vboard_drain(&board);
    for (size_t at = 1, n = 0; at + RECORD <= size && n < RECORDS; at += RECORD, n++)
        happen(data + at);
    for (unsigned i = 0; i < HOSTS; i++)
        host_close(&hosts[i]);
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
        close(fd);
    guest_receive();
    vboard_drain(&board);
    return 0;
}
