/* `vireo ctl`: sends one command to the control socket of a running VM (control/control.h), and prints its answer. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/ctl_options.h"
#include "cli/help.h"

static int connect_to(const char *path, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(addr.sun_path))
        return err_set(err, -ENAMETOOLONG, "'%.100s...': accepted is a path of up to %zu bytes", path,
                       sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int r = err_set(err, -errno, "'%s': %s; accepted is the path that vireo run --control unix:PATH was given",
                        path, strerror(errno));
        close(fd);
        return r;
    }
    return fd;
}

static char *request_text(const struct option_list *words)
{
    json_t *arguments = json_array();

    for (unsigned i = 2; i < words->n; i++)
        json_array_append_new(arguments, json_string(words->items[i]));
    json_t *request = json_pack("{s:s, s:o}", "command", words->items[1], "arguments", arguments);
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    return text;
}

/* One line each way. */
static json_t *ask(FILE *socket, const char *request, struct err *err)
{
    char *line = NULL;
    size_t size = 0;
    json_t *answer = NULL;

    if (fprintf(socket, "%s\n", request) < 0 || fflush(socket) != 0)
        err_set(err, -EIO, "the request did not get through: %s", strerror(errno));
    else if (getline(&line, &size, socket) < 0)
        err_set(err, -EIO, "no answer: the VM has ended, or refuses more clients");
    else if (!(answer = json_loads(line, 0, NULL)))
        err_set(err, -EIO, "what answers there is no vireo");
    free(line);
    return answer;
}

/* A quiet success says nothing. */
static int show(const json_t *answer, struct err *err)
{
    const char *error = json_string_value(json_object_get(answer, "error"));
    const json_t *result = json_object_get(answer, "result");

    if (!json_is_true(json_object_get(answer, "ok")))
        return err_set(err, -EAGAIN, "%s", error ? error : "the command failed");
    if (result) {
        json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
    }
    return 0;
}

static int run(const struct option_list *words, struct err *err)
{
    char *request = request_text(words);
    FILE *socket = NULL;
    int r = -ENOMEM, fd = -1;

    if (!request) {
        err_set(err, r, "the command is no UTF-8 text");
        goto out;
    }
    r = fd = connect_to(words->items[0], err);
    if (r < 0)
        goto out;
    socket = fdopen(fd, "r+");
    if (!socket) {
        r = err_set(err, -ENOMEM, "out of memory");
        close(fd);
        goto out;
    }
    json_t *answer = ask(socket, request, err);
    r = answer ? show(answer, err) : -EIO;
    json_decref(answer);
out:
    if (socket)
        fclose(socket);
    free(request);
    return r;
}

int command_ctl(int argc, char **argv)
{
    struct ctl_options options = {0};
    struct err err;
    bool help;
    int r = option_parse(&ctl_option_table, argc, argv, &options, &help, &err);

    if (r == 0 && help) {
        help_command(stdout, "ctl");
        return STATUS_OK;
    }
    if (r == 0 && options.words.n < 2)
        r = err_set(&err, -EINVAL, "ctl: accepted is PATH COMMAND [ARGUMENT...], such as vireo ctl vm.sock status");
    if (r == 0)
        r = run(&options.words, &err);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
