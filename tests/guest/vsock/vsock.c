/*
 * The guest's end of vsock connections, for vsock_test.py:
 *
 *     vsock cid                    prints this guest's address
 *     vsock echo PORT N            listens, takes N connections at once, gives each its bytes back until it ends, and then ends itself
 *     vsock ask PORT BYTES [N]     N connections to the host's PORT, one after the other: sends BYTES bytes, expects them back, ends cleanly
 *     vsock refused PORT           expects that nobody listens on the host's PORT
 *     vsock send PORT BYTES        to the host's PORT, for a figure of speed; vsock receive PORT BYTES: the other way
 *
 * Status 0 when all is as expected; otherwise 1 and a line that says what is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536

static void fail(const char *what)
{
    printf("vsock: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_socket(void)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0)
        fail("socket");
    return fd;
}

static int connect_host(unsigned port)
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
    struct timeval patience = {.tv_sec = 60};
    int fd = open_socket();

    setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static void write_all(int fd, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n <= 0)
            fail("write");
        data += n;
        len -= (size_t)n;
    }
}

static int print_cid(void)
{
    unsigned cid = 0;
    int fd = open("/dev/vsock", O_RDONLY);

    if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
        fail("/dev/vsock");
    printf("cid %u\n", cid);
    return 0;
}

static void *serve(void *opaque)
{
    int fd = (int)(intptr_t)opaque;
    uint8_t *buf = malloc(CHUNK);
    ssize_t n;

    while ((n = read(fd, buf, CHUNK)) > 0)
        write_all(fd, buf, (size_t)n);
    if (n < 0)
        fail("read");
    free(buf);
    close(fd);
    return NULL;
}

static int echo(unsigned port, unsigned connections)
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    pthread_t *threads = calloc(connections, sizeof(*threads));
    int listener = open_socket();

    if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 64) < 0)
        fail("listen");
    printf("listening\n");
    fflush(stdout);
    for (unsigned i = 0; i < connections; i++) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            fail("accept");
        if (pthread_create(&threads[i], NULL, serve, (void *)(intptr_t)fd))
            fail("thread");
    }
    for (unsigned i = 0; i < connections; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 7 + at / 251);
}

struct asking {
    int fd;
    uint64_t bytes;
};

static void *send_pattern(void *opaque)
{
    const struct asking *a = opaque;
    uint8_t *buf = malloc(CHUNK);

    for (uint64_t at = 0; at < a->bytes;) {
        size_t n = a->bytes - at < CHUNK ? (size_t)(a->bytes - at) : CHUNK;
        for (size_t i = 0; i < n; i++)
            buf[i] = pattern(at + i);
        write_all(a->fd, buf, n);
        at += n;
    }
    shutdown(a->fd, SHUT_WR);
    free(buf);
    return NULL;
}

static void ask_once(unsigned port, uint64_t bytes)
{
    struct asking a = {.fd = connect_host(port), .bytes = bytes};
    uint8_t *buf = malloc(CHUNK);
    pthread_t sender;
    uint64_t at = 0;
    ssize_t n;

    if (a.fd < 0)
        fail("connect");
    if (pthread_create(&sender, NULL, send_pattern, &a))
        fail("thread");
    while ((n = read(a.fd, buf, CHUNK)) > 0)
        for (ssize_t i = 0; i < n; i++, at++)
            if (buf[i] != pattern(at)) {
                printf("vsock: byte %llu is wrong\n", (unsigned long long)at);
                exit(1);
            }
    if (n < 0)
        fail("read");
    pthread_join(sender, NULL);
    free(buf);
    close(a.fd);
    if (at != bytes) {
        printf("vsock: %llu of %llu bytes came back\n", (unsigned long long)at, (unsigned long long)bytes);
        exit(1);
    }
}

static int refused(unsigned port)
{
    int fd = connect_host(port);

    if (fd >= 0 || errno != ECONNRESET)
        fail("not refused");
    return 0;
}

static int transfer(unsigned port, uint64_t bytes, bool send)
{
    struct timespec from, to;
    uint8_t *buf = calloc(1, CHUNK);
    int fd = connect_host(port);
    uint64_t done = 0;

    if (fd < 0)
        fail("connect");
    clock_gettime(CLOCK_MONOTONIC, &from);
    while (done < bytes) {
        size_t want = bytes - done < CHUNK ? (size_t)(bytes - done) : CHUNK;
        ssize_t n = send ? write(fd, buf, want) : read(fd, buf, want);
        if (n <= 0)
            fail(send ? "write" : "read");
        done += (uint64_t)n;
    }
    if (send && (shutdown(fd, SHUT_WR) < 0 || read(fd, buf, 1) != 0)) /* until the host has taken all */
        fail("end");
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%s %.1f MB/s\n", send ? "send" : "receive", (double)bytes / 1e6 / seconds);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    unsigned port = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 0;
    uint64_t number = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;

    if (strcmp(what, "cid") == 0)
        return print_cid();
    if (strcmp(what, "echo") == 0)
        return echo(port, (unsigned)number);
    if (strcmp(what, "refused") == 0)
        return refused(port);
    if (strcmp(what, "send") == 0 || strcmp(what, "receive") == 0)
        return transfer(port, number, *what == 's');
    if (strcmp(what, "ask") == 0) {
        unsigned times = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 1;
        for (unsigned i = 0; i < times; i++)
            ask_once(port, number);
        printf("asked %u times\n", times);
        return 0;
    }
    fprintf(
        stderr,
        "usage: vsock cid | echo PORT N | ask PORT BYTES [N] | refused PORT | send PORT BYTES | receive PORT BYTES\n");
    return 2;
}
