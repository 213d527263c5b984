#include "net/pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define PCAP_MAGIC_NS     0xa1b23c4d
#define PCAP_SNAP_LENGTH  262144
#define LINKTYPE_ETHERNET 1
#define MOST_PIECES       16

struct pcap {
    int fd; /* -1: stopped */
    bool regular;
    off_t end; /* behind the last whole frame; of a regular file */
    char *path;
};

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, snap_length, link_type;
};

struct frame_header {
    uint32_t seconds, ns, kept, length;
};

int pcap_open(struct pcap **out, const char *path, struct err *err)
{
    const struct file_header header = {PCAP_MAGIC_NS, 2, 4, 0, 0, PCAP_SNAP_LENGTH, LINKTYPE_ETHERNET};
    struct pcap *pcap = calloc(1, sizeof(*pcap));
    struct stat st;
    int r = -ENOMEM;

    *out = NULL;
    if (!pcap)
        return err_set(err, r, "capture: out of memory");
    pcap->path = strdup(path);
    if (!pcap->path) {
        err_set(err, r, "capture: out of memory");
        goto free_pcap;
    }
    pcap->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (pcap->fd < 0) {
        r = err_set(err, -errno, "capture: cannot write '%.200s': %s", path, strerror(errno));
        goto free_path;
    }
    pcap->regular = fstat(pcap->fd, &st) == 0 && S_ISREG(st.st_mode);
    ssize_t n = write(pcap->fd, &header, sizeof(header));
    if (n != sizeof(header)) {
        r = n < 0 ? -errno : -ENOSPC;
        err_set(err, r, "capture: cannot write '%.200s': %s", path, strerror(-r));
        goto close_file;
    }
    pcap->end = sizeof(header);
    *out = pcap;
    return 0;

close_file:
    close(pcap->fd);
free_path:
    free(pcap->path);
free_pcap:
    free(pcap);
    return r;
}

/* A frame of which a part is there already is taken off again. */
static void stop(struct pcap *pcap, int error)
{
    if (pcap->regular && ftruncate(pcap->fd, pcap->end) < 0)
        error = errno;
    log_warn("capture '%s' ends here: %s", pcap->path, strerror(error));
    close(pcap->fd);
    pcap->fd = -1;
}

void pcap_frame(struct pcap *pcap, const struct iovec *frame, unsigned n)
{
    struct iovec all[MOST_PIECES + 1];
    struct frame_header header;
    struct timespec now;
    size_t len = 0;

    if (!pcap || pcap->fd < 0)
        return;
    if (n > MOST_PIECES)
        n = MOST_PIECES;
    for (unsigned i = 0; i < n; i++) {
        all[i + 1] = frame[i];
        len += frame[i].iov_len;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    header = (struct frame_header){(uint32_t)now.tv_sec, (uint32_t)now.tv_nsec, (uint32_t)len, (uint32_t)len};
    all[0] = (struct iovec){&header, sizeof(header)};
    ssize_t written = writev(pcap->fd, all, (int)n + 1);
    if (written == (ssize_t)(len + sizeof(header)))
        pcap->end += written;
    else
        stop(pcap, written < 0 ? errno : ENOSPC);
}

void pcap_close(struct pcap *pcap)
{
    if (!pcap)
        return;
    if (pcap->fd >= 0)
        close(pcap->fd);
    free(pcap->path);
    free(pcap);
}
