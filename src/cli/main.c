/* `vireo`: finds the command in commands.def and runs it. Exit statuses: command.h. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/help.h"
#include "commit.h"

static const struct command commands[] = {
#define COMMAND(name, summary) {#name, command_##name},
#include "cli/commands.def"
#undef COMMAND
};

/*
 * Wrong use, unless it is the host that ran out of something, or what was asked for is right and only not there yet. The kernel's
 * -ENOSPC is a disk's, and ours a guest's RAM that is too small; a file that is written reports its own.
 */
static bool is_our_failure(int code)
{
    switch (-code) {
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EIO:
    case EAGAIN:
    case EINTR:
        return true;
    default:
        return false;
    }
}

int command_fail(int code, const struct err *err)
{
    struct err line = *err;

    /* What the user typed may hold anything; it is shown on one line all the same. */
    for (char *p = line.msg; *p; p++)
        if (iscntrl((unsigned char)*p))
            *p = '?';
    log_error("%s", line.msg);
    return is_our_failure(code) ? STATUS_FAILED : STATUS_USAGE;
}

static int no_command(const char *word)
{
    const char *names[ARRAY_SIZE(commands)];
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        names[i] = commands[i].name;
    const char *near = word ? option_nearest(word, names, ARRAY_SIZE(names)) : NULL;
    if (!word)
        err_set(&err, -EINVAL, "a command is missing; vireo --help lists them");
    else if (near)
        err_set(&err, -EINVAL, "'%.100s': no such command; did you mean %s?", word, near);
    else
        err_set(&err, -EINVAL, "'%.100s': no such command; vireo --help lists them", word);
    return command_fail(-EINVAL, &err);
}

/* Files opened later must not land where standard input and output are looked for. */
static void fill_standard_fds(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return;
}

static int dispatch(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    if (word && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
        help_program(stdout);
        return STATUS_OK;
    }
    if (word && strcmp(word, "--version") == 0) {
        printf("vireo %s\n", VIREO_VERSION);
        return STATUS_OK;
    }
    for (size_t i = 0; word && i < ARRAY_SIZE(commands); i++)
        if (strcmp(word, commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    return no_command(word);
}

int main(int argc, char **argv)
{
    fill_standard_fds();
    int status = dispatch(argc, argv);
    if (fflush(stdout) != 0 && status == STATUS_OK) {
        log_error("standard output: %s", strerror(errno));
        status = STATUS_FAILED;
    }
    return status;
}
