#include "disk/disk_known.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define MAX_BYTES MIB
#define TRIES     50 /* for the lock, 2 ms apart: it is held for the time of a read and a write */

/* Its directories are made where `make` says so. */
static bool list_path(char path[PATH_MAX], bool make)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    bool own = state && *state == '/';
    int n;

    if (!own && !(home && *home == '/'))
        return false;
    n = snprintf(path, PATH_MAX, "%s%s/vireo/images", own ? state : home, own ? "" : "/.local/state");
    if (n < 0 || n >= PATH_MAX)
        return false;
    for (char *slash = strchr(path + 1, '/'); make && slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)!mkdir(path, 0700); /* what is missing afterwards shows when the list is opened */
        *slash = '/';
    }
    return true;
}

static bool take_lock(int fd, int how)
{
    const struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};

    for (int i = 0; flock(fd, how | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK || i == TRIES)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

/* The list's text, with its end; NULL where there is none, or it is no list of ours. */
static char *read_text(int fd, size_t *len)
{
    struct stat st;

    *len = 0;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)MAX_BYTES)
        return NULL;
    char *text = malloc((size_t)st.st_size + 1);
    ssize_t n = text ? pread(fd, text, (size_t)st.st_size, 0) : -1;
    if (n < 0) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    *len = (size_t)n;
    return text;
}

static int open_list(int flags, int lock, bool make)
{
    char path[PATH_MAX];

    if (!list_path(path, make))
        return -1;
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (fd >= 0 && !take_lock(fd, lock)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Splits "FORMAT PATH\n" at *at, and goes on to the next line. */
static bool next_line(char **at, const char **format, const char **path)
{
    while (**at) {
        char *line = *at, *end = line + strcspn(line, "\n"), *space = memchr(line, ' ', (size_t)(end - line));
        *at = *end ? end + 1 : end;
        if (!space || space == line || space[1] != '/')
            continue;
        *end = '\0';
        *space = '\0';
        *format = line;
        *path = space + 1;
        return true;
    }
    return false;
}

void disk_known_each(void (*fn)(void *opaque, const char *format, const char *path), void *opaque)
{
    int fd = open_list(O_RDONLY, LOCK_SH, false);
    const char *format, *path;
    size_t len;

    if (fd < 0)
        return;
    char *text = read_text(fd, &len), *at = text;
    close(fd);
    for (unsigned n = 0; text && n < DISK_KNOWN_MAX && next_line(&at, &format, &path); n++)
        fn(opaque, format, path);
    free(text);
}

static bool has_line(const char *text, const char *line, size_t n)
{
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, line, n) == 0)
            return true;
    }
    return false;
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;

    while ((text = strchr(text, '\n'))) {
        n++;
        text++;
    }
    return n;
}

/* Keeps the newer half. Whether an image is still there is not asked: it may be on a server that is gone. */
static void write_shorter(int fd, const char *text)
{
    for (unsigned drop = count_lines(text) / 2; drop && *text; drop--)
        text += strcspn(text, "\n") + 1;
    if (ftruncate(fd, 0) == 0)
        (void)!write(fd, text, strlen(text));
}

void disk_known_add(const char *format, const char *path)
{
    char line[PATH_MAX + 32];
    int n = snprintf(line, sizeof(line), "%s %s\n", format, path);
    size_t len;

    if (n < 0 || (size_t)n >= sizeof(line) || strchr(path, '\n'))
        return;
    int fd = open_list(O_RDWR | O_CREAT | O_APPEND, LOCK_EX, true);
    if (fd < 0)
        return;
    char *text = read_text(fd, &len);
    if (!text && ftruncate(fd, 0) < 0) { /* too long to be ours */
        close(fd);
        return;
    }
    if (!text || !has_line(text, line, (size_t)n)) {
        if (text && (count_lines(text) >= DISK_KNOWN_MAX || len + (size_t)n > MAX_BYTES))
            write_shorter(fd, text);
        (void)!write(fd, line, (size_t)n);
    }
    free(text);
    close(fd);
}
