/* What the probe makes of devices that are not there, not KVM or not ours; and of this host's, which nobody knows beforehand. */
#include "engine/kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

static void refused(const char *device, int code, const char *word)
{
    struct err err = {0};
    uint64_t rate = 1;

    assert_int_equal(kvm_probe(device, &rate, &err), code);
    assert_int_equal(rate, 0);
    assert_non_null(strstr(err.msg, device));
    assert_non_null(strstr(err.msg, word));
}

static void not_there(void **state)
{
    refused("/dev/absent-kvm", -ENODEV, "not there");
}

static void not_kvm(void **state)
{
    refused("/dev/null", -ENOTTY, "no KVM");
}

/* In a child that is not root, whom nothing is forbidden. */
static int probe_as_nobody(const char *device, const char *word)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct err err = {0};
        uint64_t rate;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(2);
        bool right = kvm_probe(device, &rate, &err) == -EACCES && strstr(err.msg, word);
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void not_permitted(void **state)
{
    char path[] = "/tmp/vireo-kvm-probe-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0), 0);
    assert_int_equal(probe_as_nobody(path, "only its owner"), 0);
    if (geteuid() == 0) {
        assert_int_equal(fchown(fd, 0, 0), 0);
        assert_int_equal(fchmod(fd, 0660), 0);
        assert_int_equal(probe_as_nobody(path, "the group 'root'"), 0);
        assert_int_equal(fchown(fd, 0, 64999), 0);
        assert_int_equal(probe_as_nobody(path, "the group 64999"), 0);
    }
    close(fd);
    unlink(path);
}

static void this_host(void **state)
{
    sigset_t before, after, pending;

    pthread_sigmask(SIG_BLOCK, NULL, &before);
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        uint64_t rate = 0;
        int r = kvm_probe(KVM_PROBE_DEVICE, &rate, &err);
        print_message("# %s\n", r == 0 ? "KVM is usable" : err.msg);
        assert_int_equal(r == 0, rate >= KVM_PROBE_LEAST);
        assert_int_equal(r == 0, !err.msg[0]);
    }
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    sigpending(&pending);
    assert_int_equal(sigismember(&after, SIGRTMIN), sigismember(&before, SIGRTMIN));
    assert_false(sigismember(&pending, SIGRTMIN));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_there),
        cmocka_unit_test(not_kvm),
        cmocka_unit_test(not_permitted),
        cmocka_unit_test(this_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
