/* Integer arithmetic in registers: CRC-32 of a 4 KiB buffer, bit by bit, over and over. */
#include <errno.h>
#include <stdlib.h>

#include "workload.h"

#define BUFFER_SIZE 4096

static int crc_setup(uint64_t n, void **state)
{
    uint64_t seed = 1;
    uint8_t *buffer = malloc(BUFFER_SIZE);

    (void)n;
    if (!buffer)
        return -ENOMEM;
    for (unsigned i = 0; i < BUFFER_SIZE; i++)
        buffer[i] = (uint8_t)(workload_random(&seed) >> 56);
    *state = buffer;
    return 0;
}

static int crc_run(void *state, uint64_t n, uint64_t *checksum)
{
    const uint8_t *buffer = state;
    uint32_t crc = UINT32_MAX;

    for (uint64_t i = 0; i < n; i++) {
        crc ^= buffer[i % BUFFER_SIZE];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320 & -(crc & 1));
    }
    *checksum = ~crc;
    return 0;
}

const struct workload crc_workload = {
    .name = "crc",
    .unit = "byte of a bitwise CRC-32",
    .iterations = 32 << 20,
    .setup = crc_setup,
    .run = crc_run,
    .finish = free,
};
