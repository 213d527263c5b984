/* What a switch and its ports say to each other: what is accepted, and what a hostile end sends is not. */
#include "net/switch_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"

static struct switch_wire_hello good(void)
{
    return (struct switch_wire_hello){
        .magic = SWITCH_WIRE_MAGIC, .version = SWITCH_WIRE_VERSION, .kind = SWITCH_WIRE_JOIN, .name = "vm1.net0"};
}

static int take(const struct switch_wire_hello *h, size_t len, struct err *err)
{
    struct switch_wire_hello out;

    return switch_wire_take_hello(h, len, &out, err);
}

static void test_hello(void **state)
{
    struct switch_wire_hello h = good();
    struct err err;

    assert_int_equal(take(&h, sizeof(h), &err), 0);
    for (size_t len = 0; len < sizeof(h); len++)
        assert_int_equal(take(&h, len, &err), -EPROTO);
    h.vlan = SWITCH_WIRE_VLAN_MOST;
    h.trunk = 1;
    assert_int_equal(take(&h, sizeof(h), &err), 0);
    h.trunk = 2;
    assert_int_equal(take(&h, sizeof(h), &err), -EINVAL);
    h = good();
    h.vlan = SWITCH_WIRE_VLAN_MOST + 1;
    assert_int_equal(take(&h, sizeof(h), &err), -EINVAL);
    h = good();
    h.mac[0] = 1;
    assert_int_equal(take(&h, sizeof(h), &err), -EINVAL);
    h = good();
    h.kind = 3;
    assert_int_equal(take(&h, sizeof(h), &err), -EPROTO);
    h = good();
    h.magic++;
    assert_int_equal(take(&h, sizeof(h), &err), -EPROTO);
    h = good();
    memset(h.name, 'x', sizeof(h.name)); /* without an end */
    assert_int_equal(take(&h, sizeof(h), &err), -EINVAL);
    h.name[1] = '\n';
    h.name[2] = '\0';
    assert_int_equal(take(&h, sizeof(h), &err), -EINVAL);
    /* Another version is named, however it goes on. */
    h.version = 2;
    assert_int_equal(take(&h, 8, &err), -EPROTONOSUPPORT);
    assert_non_null(strstr(err.msg, "version 2"));
    h = good();
    h.kind = SWITCH_WIRE_STATUS;
    h.name[0] = '\0';
    assert_int_equal(take(&h, sizeof(h), &err), 0);
}

static void test_welcome(void **state)
{
    struct switch_wire_welcome w = {.magic = SWITCH_WIRE_MAGIC, .version = SWITCH_WIRE_VERSION}, out;
    struct err err;

    assert_int_equal(switch_wire_take_welcome(&w, sizeof(w), &out, &err), 0);
    assert_int_equal(switch_wire_take_welcome(&w, sizeof(w) - 1, &out, &err), -EPROTO);
    assert_int_equal(switch_wire_take_welcome(&w, 0, &out, &err), -EPROTO);
    memset(w.text, 'x', sizeof(w.text));
    w.error = EADDRINUSE;
    assert_int_equal(switch_wire_take_welcome(&w, sizeof(w), &out, &err), -EADDRINUSE);
    assert_int_equal(strlen(err.msg), SWITCH_WIRE_TEXT_MAX - 1);
    w.error = -5; /* no errno: an error all the same */
    assert_int_equal(switch_wire_take_welcome(&w, sizeof(w), &out, &err), -EPROTO);
    w.error = INT32_MIN;
    assert_int_equal(switch_wire_take_welcome(&w, sizeof(w), &out, &err), -EPROTO);
    w.version = 9;
    assert_int_equal(switch_wire_take_welcome(&w, sizeof(w), &out, &err), -EPROTONOSUPPORT);
}

static void test_names(void **state)
{
    static const char *const names[] = {"a", "lan", "VM-1.net_0", "0", "1234567890123456789012345678901"};
    static const char *const none[] = {
        "", ".", "..", ".a", "-a", "_", "a b", "a/b", "a\n", "\xc3\xa4", "12345678901234567890123456789012"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_true(switch_wire_name_ok(names[i]));
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        assert_false(switch_wire_name_ok(none[i]));
}

static void test_paths(void **state)
{
    char dir[] = "/tmp/vireo-wire-XXXXXX", path[SWITCH_WIRE_PATH_MAX], expected[SWITCH_WIRE_PATH_MAX], long_path[200];
    struct err err;

    assert_non_null(mkdtemp(dir));
    setenv("XDG_RUNTIME_DIR", dir, 1);
    assert_int_equal(switch_wire_path("lan", false, path, &err), 0);
    snprintf(expected, sizeof(expected), "%s/vireo/switch-lan", dir);
    assert_string_equal(path, expected);
    assert_int_equal(access(expected, F_OK), -1);
    assert_int_equal(switch_wire_path("lan", true, path, &err), 0);
    *strrchr(expected, '/') = '\0';
    assert_int_equal(access(expected, W_OK), 0);
    /* A directory that others can write to, or a link to one, is none to find one's switch in. */
    assert_int_equal(chmod(expected, 0770), 0);
    assert_int_equal(switch_wire_path("lan", false, path, &err), -EPERM);
    assert_int_equal(rmdir(expected), 0);
    assert_int_equal(symlink("/tmp", expected), 0);
    assert_int_equal(switch_wire_path("lan", true, path, &err), -EPERM);
    unlink(expected);
    rmdir(dir);
    assert_int_equal(switch_wire_path("lan/1", false, path, &err), 0);
    assert_string_equal(path, "lan/1");
    assert_int_equal(switch_wire_path("..", false, path, &err), -EINVAL);
    memset(long_path, '/', sizeof(long_path));
    long_path[sizeof(long_path) - 1] = '\0';
    assert_int_equal(switch_wire_path(long_path, false, path, &err), -ENAMETOOLONG);
    setenv("XDG_RUNTIME_DIR", long_path, 1);
    assert_int_equal(switch_wire_path("lan", false, path, &err), -ENAMETOOLONG);
    unsetenv("XDG_RUNTIME_DIR");
}

static int open_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 100; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* No descriptor that somebody sends stays open unseen. */
static void test_descriptors(void **state)
{
    int pair[2], fd, two[2] = {0, 1};
    char bytes[8];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(two))];
    } control = {.header = {CMSG_LEN(sizeof(two)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov = {"12345678", 8};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    int before = open_fds();
    assert_int_equal(switch_wire_receive(pair[0], bytes, 8, &fd), -EAGAIN);
    assert_int_equal(switch_wire_send(pair[1], "12345678", 8, -1), 0);
    assert_int_equal(switch_wire_receive(pair[0], bytes, 8, &fd), 8);
    assert_int_equal(fd, -1);
    assert_int_equal(switch_wire_send(pair[1], "12345678", 8, pair[1]), 0);
    assert_int_equal(switch_wire_receive(pair[0], bytes, 8, &fd), 8);
    assert_true(fd >= 0);
    close(fd);
    /* Not asked for, in a message that is too long, and more than one. */
    assert_int_equal(switch_wire_send(pair[1], "12345678", 8, pair[1]), 0);
    assert_int_equal(switch_wire_receive(pair[0], bytes, 8, NULL), 8);
    assert_int_equal(switch_wire_send(pair[1], "12345678", 8, pair[1]), 0);
    assert_int_equal(switch_wire_receive(pair[0], bytes, 7, &fd), -EMSGSIZE);
    memcpy(CMSG_DATA(&control.header), two, sizeof(two));
    assert_int_equal(sendmsg(pair[1], &m, 0), 8);
    assert_int_equal(switch_wire_receive(pair[0], bytes, 8, &fd), 8);
    if (fd >= 0)
        close(fd);
    assert_int_equal(open_fds(), before);
    close(pair[1]);
    assert_int_equal(switch_wire_receive(pair[0], bytes, 8, &fd), 0);
    assert_int_equal(switch_wire_send(pair[0], "1", 1, -1), -EPIPE);
    close(pair[0]);
}

/* Memory that could be taken away while it is used is not taken. */
static void test_memory(void **state)
{
    struct err err;
    int fd = switch_wire_make_memory("test", 8192);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 16384), -1);
    void *memory = switch_wire_map(fd, 8192, &err);
    assert_non_null(memory);
    munmap(memory, 8192);
    assert_null(switch_wire_map(fd, 4096, &err));
    assert_null(switch_wire_map(fd, 16384, &err));
    close(fd);
    fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 8192), 0);
    assert_null(switch_wire_map(fd, 8192, &err));
    close(fd);
    fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
    assert_null(switch_wire_map(fd, 0, &err));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello), cmocka_unit_test(test_welcome),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_paths), cmocka_unit_test(test_descriptors), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
