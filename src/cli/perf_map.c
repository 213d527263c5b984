#include "cli/perf_map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

FILE *perf_map_open(struct err *err)
{
    char path[64];
    FILE *map = NULL;

    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    unlink(path); /* of an earlier process with this number */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd >= 0)
        map = fdopen(fd, "w");
    if (!map) {
        err_set(err, -errno, "--perf-map: %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    setvbuf(map, NULL, _IOLBF, 0); /* whole, whenever perf looks */
    return map;
}

void perf_map_code(FILE *map, const struct engine_code *code)
{
    if (!code->host_len)
        return;
    if (code->name)
        fprintf(map, "%" PRIxPTR " %zx vireo:%s\n", (uintptr_t)code->host, code->host_len, code->name);
    else
        fprintf(map, "%" PRIxPTR " %zx guest:%s%u:%" PRIx64 "\n", (uintptr_t)code->host, code->host_len,
                code->cpl == 3 ? "user" : "kernel", code->size * 8, code->lin);
}
