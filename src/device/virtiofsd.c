/*
 * The socket: virtiofsd takes one it can accept a connection from. That is a listening socket without a name in any file system, to which we have
 * connected before the child is there, so that the connection it accepts is ours.
 */
#include "device/virtiofsd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAREWELL_MS 2000

static const char *const programs[] = {"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"};

static const char *find_program(const char *wanted, struct err *err)
{
    if (wanted && *wanted) {
        if (access(wanted, X_OK) == 0)
            return wanted;
        err_set(err, -errno, "the program '%.200s': %s", wanted, strerror(errno));
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
        if (access(programs[i], X_OK) == 0)
            return programs[i];
    err_set(
        err, -ENOENT,
        "virtiofsd is not installed: there is no %s (Debian 12: package qemu-system-common) nor %s (later: virtiofsd)",
        programs[0], programs[1]);
    return NULL;
}

/* ---- who the child is: root of a user namespace ---- */

/* The first range of a user in /etc/subuid or /etc/subgid: "name:first:count". */
static bool find_range(const char *path, uid_t uid, unsigned *first, unsigned *count)
{
    const struct passwd *pw = getpwuid(uid);
    char line[256], number[16];
    bool found = false;
    FILE *f = fopen(path, "re");

    snprintf(number, sizeof(number), "%u", uid);
    while (f && !found && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = '\0';
        found = ((pw && strcmp(line, pw->pw_name) == 0) || strcmp(line, number) == 0) &&
                sscanf(colon + 1, "%u:%u", first, count) == 2 && *count > 0;
    }
    if (f)
        fclose(f);
    return found;
}

/* Root is the user, ids from 1 up its subordinates, by the helpers that may write that map. */
static int map_by_helper(const char *helper, pid_t pid, unsigned id, unsigned first, unsigned count)
{
    char words[5][16];
    char *argv[] = {(char *)helper, words[0], "0", words[1], "1", "1", words[2], words[3], NULL};
    char *env[] = {NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status;

    snprintf(words[0], sizeof(words[0]), "%d", pid);
    snprintf(words[1], sizeof(words[1]), "%u", id);
    snprintf(words[2], sizeof(words[2]), "%u", first);
    snprintf(words[3], sizeof(words[3]), "%u", count);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    int r = posix_spawnp(&child, helper, &actions, NULL, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    if (r)
        return -r;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static int write_file(pid_t pid, const char *name, const char *text)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    int r = n < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* Root is the user, and there is nobody else. */
static int map_alone(pid_t pid)
{
    char text[32];

    int r = write_file(pid, "setgroups", "deny");
    snprintf(text, sizeof(text), "0 %u 1", geteuid());
    if (r == 0)
        r = write_file(pid, "uid_map", text);
    snprintf(text, sizeof(text), "0 %u 1", getegid());
    return r < 0 ? r : write_file(pid, "gid_map", text);
}

static int map_ids(pid_t pid)
{
    unsigned uid, n_uids, gid, n_gids;

    if (find_range("/etc/subuid", geteuid(), &uid, &n_uids) && find_range("/etc/subgid", geteuid(), &gid, &n_gids) &&
        map_by_helper("/usr/bin/newuidmap", pid, geteuid(), uid, n_uids) == 0 &&
        map_by_helper("/usr/bin/newgidmap", pid, getegid(), gid, n_gids) == 0)
        return 0;
    return map_alone(pid);
}

/* ---- the child ---- */

struct launch {
    char *const *argv;
    int listener, output;
    int sync[2]; /* in a user namespace: a byte each way; else -1 */
};

static void say(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

static _Noreturn void die(const char *what)
{
    const char *why = strerrordesc_np(errno);

    say(what);
    say(": ");
    say(why ? why : "failed");
    _exit(127);
}

/* Between fork and exec, where other threads' locks may be held for ever: system calls only. */
static _Noreturn void be_virtiofsd(const struct launch *l)
{
    sigset_t none;
    char byte = 0;
    int null = open("/dev/null", O_RDONLY);

    setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(l->output, STDOUT_FILENO) < 0 || dup2(l->output, STDERR_FILENO) < 0)
        _exit(127);
    if (l->sync[0] >= 0 &&
        (unshare(CLONE_NEWUSER) < 0 || write(l->sync[1], &byte, 1) != 1 || read(l->sync[1], &byte, 1) != 1))
        die("a user namespace");
    if (syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) < 0 && errno != ENOSYS && errno != EINVAL)
        die("close_range");
    if (fcntl(l->listener, F_SETFD, 0) < 0)
        die("the socket");
    execv(l->argv[0], l->argv);
    die(l->argv[0]);
}

/* When the child has its namespace, its ids are mapped; then it goes on. */
static int let_in(const struct launch *l, pid_t pid)
{
    struct pollfd ready = {.fd = l->sync[0], .events = POLLIN};
    char byte;

    if (poll(&ready, 1, FAREWELL_MS) != 1 || read(l->sync[0], &byte, 1) != 1)
        return -EPERM;
    int r = map_ids(pid);
    return r < 0 ? r : write(l->sync[0], &byte, 1) == 1 ? 0 : -EPIPE;
}

static int launch(struct virtiofsd *d, const struct launch *l, struct err *err)
{
    int r = 0;

    d->pid = fork();
    if (d->pid == 0)
        be_virtiofsd(l);
    if (d->pid < 0) {
        d->pid = 0;
        return err_set(err, -errno, "virtiofsd: fork: %s", strerror(errno));
    }
    setpgid(d->pid, d->pid);
    d->pid_fd = (int)syscall(SYS_pidfd_open, d->pid, 0);
    if (d->pid_fd < 0)
        r = err_set(err, -errno, "virtiofsd: pidfd_open: %s", strerror(errno));
    else if (l->sync[0] >= 0 && (r = let_in(l, d->pid)) < 0)
        err_set(err, r, "virtiofsd needs root or a user namespace, and the host refuses that: %s", strerror(-r));
    return r;
}

static int make_socket(int *listener, int *connected, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(sa_family_t); /* a name of the kernel's choice, in no file system */
    int r = 0;

    *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *connected = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*listener < 0 || *connected < 0 || bind(*listener, (struct sockaddr *)&addr, len) < 0)
        r = -errno;
    len = sizeof(addr);
    if (r == 0 && (getsockname(*listener, (struct sockaddr *)&addr, &len) < 0 || listen(*listener, 1) < 0 ||
                   connect(*connected, (struct sockaddr *)&addr, len) < 0))
        r = -errno;
    return r < 0 ? err_set(err, r, "a socket for virtiofsd: %s", strerror(-r)) : 0;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static int check_source(const char *source, struct err *err)
{
    struct stat st;

    if (stat(source, &st) < 0)
        return err_set(err, -errno, "the directory '%.200s': %s", source, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(err, -ENOTDIR, "'%.200s' is no directory", source);
    return 0;
}

/* A value of virtiofsd's -o, where a comma or a backslash is written behind a backslash. */
static void quote(char *out, size_t size, const char *key, const char *text)
{
    size_t n = (size_t)snprintf(out, size, "%s", key);

    for (; *text && n + 2 < size; text++) {
        if (*text == ',' || *text == '\\')
            out[n++] = '\\';
        out[n++] = *text;
    }
    out[n] = '\0';
}

int virtiofsd_open(struct virtiofsd *d, const struct virtiofsd_conf *conf, struct err *err)
{
    char source[2 * 4096 + 16], fd[24], cache[24];
    int pipe_fds[2] = {-1, -1}, listener = -1;
    struct launch l = {.sync = {-1, -1}};

    *d = (struct virtiofsd){.pid_fd = -1, .socket = -1, .output = -1};
    const char *program = find_program(conf->program, err);
    if (!program)
        return -ENOENT;
    int r = check_source(conf->source, err);
    if (r < 0)
        return r;
    r = make_socket(&listener, &d->socket, err);
    if (r == 0 && (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0 ||
                   (geteuid() != 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l.sync) < 0)))
        r = err_set(err, -errno, "pipes for virtiofsd: %s", strerror(errno));
    if (r == 0) {
        quote(source, sizeof(source), "source=", conf->source);
        snprintf(fd, sizeof(fd), "--fd=%d", listener);
        snprintf(cache, sizeof(cache), "cache=%s", conf->cache);
        char *argv[] = {(char *)program, "-f", fd, "-o", source, "-o", "sandbox=namespace", "-o", cache, NULL};
        l.argv = argv;
        l.listener = listener;
        l.output = pipe_fds[1];
        d->output = pipe_fds[0];
        pipe_fds[0] = -1;
        r = launch(d, &l, err);
    }
    close_fd(listener);
    close_fd(pipe_fds[0]);
    close_fd(pipe_fds[1]);
    close_fd(l.sync[0]);
    close_fd(l.sync[1]);
    if (r < 0)
        virtiofsd_close(d);
    return r;
}

void virtiofsd_kill(struct virtiofsd *d)
{
    if (d->pid > 0)
        kill(-d->pid, SIGKILL);
}

void virtiofsd_reap(struct virtiofsd *d, char *how, size_t size)
{
    int status = 0;

    snprintf(how, size, "gone");
    if (d->pid == 0)
        return;
    kill(-d->pid, SIGKILL); /* its own child, where it has not ended first; the number is ours until the next line */
    while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
        ;
    d->pid = 0;
    snprintf(how, size, "%s %d", WIFEXITED(status) ? "exit status" : "signal",
             WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

void virtiofsd_last_words(struct virtiofsd *d, char *line, size_t size)
{
    char text[2048];
    size_t len = 0;
    ssize_t n;

    while ((n = read(d->output, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)n;
        if (len == sizeof(text) - 1) { /* the end matters */
            memmove(text, text + len / 2, len - len / 2);
            len -= len / 2;
        }
    }
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    text[len] = '\0';
    const char *last = strrchr(text, '\n');
    snprintf(line, size, "%.*s", (int)size - 1, last ? last + 1 : text);
}

void virtiofsd_close(struct virtiofsd *d)
{
    char how[32];

    close_fd(d->socket);
    if (d->pid > 0) {
        struct pollfd gone = {.fd = d->pid_fd, .events = POLLIN};
        if (d->pid_fd < 0 || poll(&gone, 1, FAREWELL_MS) != 1)
            virtiofsd_kill(d);
        virtiofsd_reap(d, how, sizeof(how));
    }
    close_fd(d->pid_fd);
    close_fd(d->output);
    *d = (struct virtiofsd){.pid_fd = -1, .socket = -1, .output = -1};
}
