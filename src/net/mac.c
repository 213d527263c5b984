#include "net/mac.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mac_parse(const char *text, uint8_t mac[MAC_SIZE])
{
    static const uint8_t none[MAC_SIZE];

    for (unsigned i = 0; i < MAC_SIZE; i++) {
        int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
        if (low < 0)
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
        text += 2;
        if (i + 1 < MAC_SIZE && *text != ':' && *text != '-')
            return false;
        text += i + 1 < MAC_SIZE;
    }
    return !*text && !mac_is_group(mac) && memcmp(mac, none, MAC_SIZE) != 0;
}

void mac_format(const uint8_t mac[MAC_SIZE], char text[MAC_TEXT_MAX])
{
    snprintf(text, MAC_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

/* FNV-1a. */
static uint64_t add(uint64_t hash, const void *data, size_t len)
{
    for (const uint8_t *p = data; len; p++, len--)
        hash = (hash ^ *p) * UINT64_C(0x100000001b3);
    return hash;
}

/* Spreads every bit over all of them, which FNV does to the last bytes only upwards (the finalizer of MurmurHash3). */
static uint64_t spread(uint64_t hash)
{
    hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 33;
}

static uint64_t add_host(uint64_t hash)
{
    char id[64];
    ssize_t n = 0;
    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        n = read(fd, id, sizeof(id));
        close(fd);
    }
    if (n <= 0)
        n = gethostname(id, sizeof(id)) < 0 ? 0 : (ssize_t)strnlen(id, sizeof(id));
    return add(hash, id, (size_t)n);
}

static uint64_t add_process(uint64_t hash)
{
    struct timespec now;
    pid_t pid = getpid();

    clock_gettime(CLOCK_REALTIME, &now);
    return add(add(hash, &pid, sizeof(pid)), &now, sizeof(now));
}

void mac_derive(uint8_t mac[MAC_SIZE], const char *vm, unsigned index)
{
    uint64_t hash = add_host(UINT64_C(0xcbf29ce484222325));

    hash = vm ? add(hash, vm, strlen(vm) + 1) : add_process(hash);
    hash = spread(add(hash, &index, sizeof(index)));
    memcpy(mac, &hash, MAC_SIZE);
    mac[0] = (uint8_t)((mac[0] & ~1) | 2); /* one station's, locally administered */
}

unsigned mac_find_twice(uint8_t (*macs)[MAC_SIZE], unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        for (unsigned j = 0; j < i; j++)
            if (memcmp(macs[i], macs[j], MAC_SIZE) == 0)
                return i;
    return n;
}
