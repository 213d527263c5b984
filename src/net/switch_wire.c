#include "net/switch_wire.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(sizeof(struct switch_wire_hello) == 56, "as on the wire");
_Static_assert(sizeof(struct switch_wire_welcome) == 296, "as on the wire");

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* ---- names and paths ---- */

bool switch_wire_name_ok(const char *name)
{
    size_t len = strnlen(name, SWITCH_WIRE_NAME_MAX);

    if (len == 0 || len == SWITCH_WIRE_NAME_MAX || !isalnum((unsigned char)*name))
        return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_' && *p != '.')
            return false;
    return true;
}

/* Nobody else may have a socket of his in there, or in the place of the directory. */
static int check_directory(const char *dir, bool make, struct err *err)
{
    struct stat st;

    if (make && mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "cannot make the directory '%s': %s", dir, strerror(errno));
    if (lstat(dir, &st) < 0)
        return errno == ENOENT ? 0 : err_set(err, -errno, "directory '%s': %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
        return err_set(err, -EPERM, "'%s' is no directory that this user alone can write to", dir);
    return 0;
}

int switch_wire_path(const char *name, bool make, char path[SWITCH_WIRE_PATH_MAX], struct err *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char dir[SWITCH_WIRE_PATH_MAX];
    int n;

    if (strchr(name, '/')) {
        n = snprintf(path, SWITCH_WIRE_PATH_MAX, "%s", name);
        return n < SWITCH_WIRE_PATH_MAX
                   ? 0
                   : err_set(err, -ENAMETOOLONG, "the socket's path '%.80s...' has %d bytes; up to %d are accepted",
                             name, n, SWITCH_WIRE_PATH_MAX - 1);
    }
    if (!switch_wire_name_ok(name))
        return err_set(err, -EINVAL,
                       "switch '%.60s': accepted are up to %d letters, digits and '-_.', or a path with a slash", name,
                       SWITCH_WIRE_NAME_MAX - 1);
    if (runtime && *runtime == '/')
        n = snprintf(dir, sizeof(dir), "%s/vireo", runtime);
    else if (geteuid() == 0)
        n = snprintf(dir, sizeof(dir), "/run/vireo");
    else
        n = snprintf(dir, sizeof(dir), "/tmp/vireo-%u", (unsigned)geteuid());
    if (n < (int)sizeof(dir))
        n = snprintf(path, SWITCH_WIRE_PATH_MAX, "%s/switch-%s", dir, name);
    if (n >= SWITCH_WIRE_PATH_MAX)
        return err_set(err, -ENAMETOOLONG, "the path of the socket of switch '%s' below '%.80s' is too long", name,
                       dir);
    return check_directory(dir, make, err);
}

/* ---- messages ---- */

int switch_wire_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

int switch_wire_take_hello(const void *message, size_t len, struct switch_wire_hello *hello, struct err *err)
{
    *hello = (struct switch_wire_hello){0};
    memcpy(hello, message, len < sizeof(*hello) ? len : sizeof(*hello));
    if (len < 8 || hello->magic != SWITCH_WIRE_MAGIC)
        return err_set(err, -EPROTO, "that is no hello");
    if (hello->version != SWITCH_WIRE_VERSION)
        return err_set(err, -EPROTONOSUPPORT, "version %u of the protocol; this switch speaks %d", hello->version,
                       SWITCH_WIRE_VERSION);
    if (len != sizeof(*hello) || (hello->kind != SWITCH_WIRE_JOIN && hello->kind != SWITCH_WIRE_STATUS))
        return err_set(err, -EPROTO, "a hello of kind %u in %zu bytes", hello->kind, len);
    if (hello->kind == SWITCH_WIRE_STATUS)
        return 0;
    if (!switch_wire_name_ok(hello->name))
        return err_set(err, -EINVAL, "the port's name: accepted are up to %d letters, digits and '-_.'",
                       SWITCH_WIRE_NAME_MAX - 1);
    if (hello->vlan > SWITCH_WIRE_VLAN_MOST || hello->trunk > 1)
        return err_set(err, -EINVAL, "VLAN %u: accepted is 1 to %d", hello->vlan, SWITCH_WIRE_VLAN_MOST);
    if (hello->mac[0] & 1)
        return err_set(err, -EINVAL, "the interface's address is that of a group");
    return 0;
}

int switch_wire_take_welcome(const void *message, size_t len, struct switch_wire_welcome *w, struct err *err)
{
    *w = (struct switch_wire_welcome){0};
    memcpy(w, message, len < sizeof(*w) ? len : sizeof(*w));
    if (len < 8 || w->magic != SWITCH_WIRE_MAGIC)
        return err_set(err, -EPROTO, "what answers is no switch");
    if (w->version != SWITCH_WIRE_VERSION)
        return err_set(err, -EPROTONOSUPPORT, "the switch speaks version %u of the protocol, and this is version %d",
                       w->version, SWITCH_WIRE_VERSION);
    if (len != sizeof(*w))
        return err_set(err, -EPROTO, "a welcome of %zu bytes", len);
    w->text[sizeof(w->text) - 1] = '\0';
    if (w->error)
        return err_set(err, w->error > 0 && w->error < 4096 ? -w->error : -EPROTO, "%s", w->text);
    return 0;
}

int switch_wire_send(int socket, const void *message, size_t len, int fd)
{
    struct iovec iov = {(void *)message, len};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
        control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    do
        n = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

ssize_t switch_wire_receive(int socket, void *message, size_t size, int *fd)
{
    struct iovec iov = {message, size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd) {
        *fd = -1;
        m.msg_control = &control;
        m.msg_controllen = CMSG_LEN(sizeof(int)); /* of several, one: the kernel closes the others */
    }
    do
        n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    struct cmsghdr *c = fd ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(c), sizeof(*fd));
    if (m.msg_flags & MSG_TRUNC) {
        if (fd && *fd >= 0)
            close(*fd);
        return -EMSGSIZE;
    }
    return n;
}

/* ---- memory ---- */

int switch_wire_make_memory(const char *name, uint64_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

void *switch_wire_map(int fd, uint64_t bytes, struct err *err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || (uint64_t)st.st_size != bytes) {
        err_set(err, -EPROTO, "the memory that came is none to be shared");
        return NULL;
    }
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        err_set(err, -errno, "mapping %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
        return NULL;
    }
    return memory;
}
