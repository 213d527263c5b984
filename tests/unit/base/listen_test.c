/* Listening sockets: what is taken is refused by name, what is stale replaced, and nothing stays behind. */
#include "base/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit.h"

static void test_tcp(void **state)
{
    struct listen_socket s, other;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct err err = {0};
    char port[8];

    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    assert_in_range(listen_port(&s), 1, 65535);
    addr.sin_port = htons((uint16_t)listen_port(&s));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    snprintf(port, sizeof(port), "%u", listen_port(&s));
    assert_int_equal(listen_tcp(&other, "127.0.0.1", port, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, port));
    listen_close(&other); /* of one that failed: nothing */
    listen_close(&s);
    assert_int_equal(listen_tcp(&s, "127.0.0.1", port, &err), 0);
    listen_close(&s);
    assert_int_equal(listen_tcp(&s, "999.0.0.1", port, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "'999.0.0.1'"));
}

static void test_unix(void **state)
{
    char dir[] = "/tmp/vireo-listen-XXXXXX", path[64], moved[64], long_path[200];
    struct listen_socket s, other;
    struct err err = {0};

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/socket", dir);
    snprintf(moved, sizeof(moved), "%s/moved", dir);
    assert_int_equal(listen_unix(&s, path, &err), 0);
    assert_int_equal(listen_unix(&other, path, &err), -EADDRINUSE);
    listen_close(&other);
    assert_int_equal(access(path, F_OK), 0);

    /* Left behind by a process that died: its file is there, and nobody listens. */
    close(s.fd);
    assert_int_equal(listen_unix(&other, path, &err), 0);
    listen_close(&other);
    assert_int_equal(access(path, F_OK), -1);

    /* What lies there at the end is somebody else's. */
    assert_int_equal(listen_unix(&s, path, &err), 0);
    assert_int_equal(rename(path, moved), 0);
    fclose(fopen(path, "we"));
    listen_close(&s);
    assert_int_equal(access(path, F_OK), 0);
    unlink(moved);
    assert_int_equal(listen_unix(&s, path, &err), -EEXIST);
    assert_non_null(strstr(err.msg, path));
    unlink(path);
    rmdir(dir);

    memset(long_path, 'x', sizeof(long_path));
    long_path[sizeof(long_path) - 1] = '\0';
    assert_int_equal(listen_unix(&s, long_path, &err), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_unix),
    };
    return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}
