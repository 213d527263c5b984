/* Page faults: fresh anonymous memory, 4 MiB at a time, one byte read and written in each page. Mapping and unmapping are in the time. */
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "workload.h"

#define PAGE_SIZE   4096
#define CHUNK_PAGES 1024

static int fault_setup(uint64_t n, void **state)
{
    (void)n;
    *state = NULL;
    return 0;
}

static int touch(uint64_t pages, uint64_t *sum)
{
    uint8_t *chunk = mmap(NULL, CHUNK_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (chunk == MAP_FAILED)
        return -errno;
    /* A kernel without huge pages answers EINVAL, and is as we want it. */
    if (madvise(chunk, CHUNK_PAGES * PAGE_SIZE, MADV_NOHUGEPAGE) && errno != EINVAL)
        return -errno;
    for (uint64_t i = 0; i < pages; i++) {
        volatile uint8_t *byte = chunk + i * PAGE_SIZE + i % PAGE_SIZE;

        (*byte)++; /* the first touch is a write, as it mostly is */
        *sum = workload_mix(*sum, *byte);
    }
    return munmap(chunk, CHUNK_PAGES * PAGE_SIZE) ? -errno : 0;
}

static int fault_run(void *state, uint64_t n, uint64_t *checksum)
{
    (void)state;
    *checksum = 0;
    for (uint64_t done = 0; done < n; done += CHUNK_PAGES) {
        int r = touch(n - done < CHUNK_PAGES ? n - done : CHUNK_PAGES, checksum);

        if (r)
            return r;
    }
    return 0;
}

static void fault_finish(void *state)
{
    (void)state;
}

const struct workload fault_workload = {
    .name = "fault",
    .unit = "page of fresh anonymous memory",
    .iterations = 256 << 10,
    .setup = fault_setup,
    .run = fault_run,
    .finish = fault_finish,
};
