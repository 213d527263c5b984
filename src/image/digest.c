#include "image/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECE MIB

int digest_file(const char *path, char hex[DIGEST_HEX], const struct image_job *job, uint64_t *done, uint64_t total,
                struct err *err)
{
    uint8_t *buf = malloc(PIECE), digest[SHA256_DIGEST_SIZE];
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    struct sha256_ctx sha;
    ssize_t n = 0;

    sha256_init(&sha);
    if (!buf || fd < 0)
        r = err_set(err, buf ? -errno : -ENOMEM, "'%.200s' cannot be read: %s", path, strerror(buf ? errno : ENOMEM));
    while (r == 0 && (n = read(fd, buf, PIECE)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r = err_set(err, -errno, "'%.200s' cannot be read: %s", path, strerror(errno));
            break;
        }
        sha256_update(&sha, (size_t)n, buf);
        *done += (uint64_t)n;
        r = image_job_report(job, *done, total, err);
    }
    if (fd >= 0)
        close(fd);
    free(buf);
    sha256_digest(&sha, sizeof(digest), digest);
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(hex + i * 2, 3, "%02x", digest[i]);
    return r;
}
