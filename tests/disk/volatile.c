/*
 * Preloaded into a server: gives the file VOLATILE_FILE a cache that is lost with the server. What a write is about to change is kept in VOLATILE_JOURNAL until a
 * sync; whoever ends the server without one puts it back (servers.py).
 *
 * A record: offset, length, the file's size (64 bits each), then the bytes that were there.
 */
#undef _FILE_OFFSET_BITS /* pwrite() and pwrite64() are to be two */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;

static int is_it(int fd)
{
    const char *path = getenv("VOLATILE_FILE");
    struct stat a, b;

    return path && stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static void append(const void *data, size_t len)
{
    static ssize_t (*real)(int, const void *, size_t);

    if (!real)
        real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (real(journal, data, len) != (ssize_t)len)
        abort();
}

static void remember_locked(int fd, uint64_t offset, size_t len)
{
    char path[64];
    uint8_t *old = calloc(1, len + 1);
    struct stat st;

    if (journal < 0)
        journal = open(getenv("VOLATILE_JOURNAL"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    /* The server's descriptor need not be one to read from. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    if (journal < 0 || in < 0 || !old || fstat(in, &st) < 0 || pread(in, old, len, (off_t)offset) < 0)
        abort();
    close(in);
    const uint64_t head[3] = {offset, len, (uint64_t)st.st_size};
    append(head, sizeof(head));
    append(old, len);
    free(old);
}

static size_t length(const struct iovec *iov, int n)
{
    size_t len = 0;

    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    return len;
}

#define WRITES(name, arguments, call, size)                       \
    ssize_t name arguments;                                       \
    ssize_t name arguments                                        \
    {                                                             \
        static ssize_t(*real) arguments;                          \
        if (!real)                                                \
            real = (ssize_t(*) arguments)dlsym(RTLD_NEXT, #name); \
        if (!is_it(fd))                                           \
            return real call;                                     \
        pthread_mutex_lock(&lock);                                \
        remember_locked(fd, (uint64_t)offset, size);              \
        ssize_t n = real call;                                    \
        pthread_mutex_unlock(&lock);                              \
        return n;                                                 \
    }

WRITES(pwrite, (int fd, const void *buf, size_t len, off_t offset), (fd, buf, len, offset), len)
WRITES(pwrite64, (int fd, const void *buf, size_t len, off64_t offset), (fd, buf, len, offset), len)
WRITES(pwritev, (int fd, const struct iovec *iov, int n_iov, off_t offset), (fd, iov, n_iov, offset),
       length(iov, n_iov))
WRITES(pwritev64, (int fd, const struct iovec *iov, int n_iov, off64_t offset), (fd, iov, n_iov, offset),
       length(iov, n_iov))

/* A power cut of the host's is not what is tried: nothing need reach the disk. */
static int sync_file(int fd)
{
    if (!is_it(fd))
        return 0;
    pthread_mutex_lock(&lock);
    int r = journal < 0 ? 0 : ftruncate(journal, 0);
    pthread_mutex_unlock(&lock);
    return r;
}

int fsync(int fd)
{
    return sync_file(fd);
}

int fdatasync(int fd)
{
    return sync_file(fd);
}

/* ganesha loads its file systems so that they would find libc before us. */
void *dlopen(const char *path, int flags)
{
    void *(*real)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    return real(path, flags & ~RTLD_DEEPBIND);
}
