/* Captures: what is in the file, and how a capture ends where it cannot be written. */
#include "net/pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../unit.h"

static char dir[] = "/tmp/vireo-pcap-XXXXXX";
static char path[64];

static void test_frames(void **state)
{
    uint8_t bytes[256], frame[100];
    const struct iovec pieces[] = {{frame, 14}, {frame + 14, 0}, {frame + 14, 86}};
    struct pcap *pcap;
    struct err err = {0};

    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)i;
    time_t before = time(NULL);
    assert_int_equal(pcap_open(&pcap, path, &err), 0);
    pcap_frame(pcap, pieces, 3);
    pcap_frame(pcap, pieces, 1);
    pcap_close(pcap);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, bytes, sizeof(bytes)), 24 + 16 + 100 + 16 + 14);
    close(fd);
    assert_int_equal(load_le32(bytes), 0xa1b23c4d);
    assert_int_equal(load_le32(bytes + 4), 0x00040002);
    assert_int_equal(load_le32(bytes + 20), 1);
    assert_in_range(load_le32(bytes + 24), before, before + 60);
    assert_in_range(load_le32(bytes + 28), 0, 999999999);
    assert_int_equal(load_le32(bytes + 32), 100);
    assert_int_equal(load_le32(bytes + 36), 100);
    assert_memory_equal(bytes + 40, frame, 100);
    assert_int_equal(load_le32(bytes + 140 + 8), 14);
    pcap_frame(NULL, pieces, 1);
    pcap_close(NULL);
}

/* The file's size is limited, as the disk's is: whole frames stay, and nothing more comes. */
static void test_full(void **state)
{
    static uint8_t frame[1000];
    const struct iovec piece = {frame, sizeof(frame)};
    struct rlimit old, small;
    struct pcap *pcap;
    struct err err = {0};
    struct stat st;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 24 + 2 * 1016 + 500;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(pcap_open(&pcap, path, &err), 0);
    for (int i = 0; i < 5; i++)
        pcap_frame(pcap, &piece, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    pcap_frame(pcap, &piece, 1);
    pcap_close(pcap);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 24 + 2 * 1016);
}

static void test_refused(void **state)
{
    struct pcap *pcap;
    struct err err = {0};

    assert_int_equal(pcap_open(&pcap, "/nowhere/file", &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nowhere/file"));
    assert_null(pcap);
    assert_int_equal(pcap_open(&pcap, "/dev/full", &err), -ENOSPC);
    assert_null(pcap);
}

static int make_dir(void **state)
{
    snprintf(path, sizeof(path), "%s/capture", mkdtemp(dir));
    return 0;
}

static int remove_dir(void **state)
{
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
