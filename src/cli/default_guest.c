#include "cli/default_guest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* No `quiet`: the kernel's first lines come from earlyprintk, long before its serial driver. */
#define APPEND "console=ttyS0,115200 earlyprintk=ttyS0,115200"

/* From the directory of the executable: installed in bin/, or built in build/src/cli/. */
static const char *const places[] = {"../share/vireo/guest", "../../../guest"};

static int path_join(char *out, const char *dir, const char *place, const char *file)
{
    int n = snprintf(out, PATH_MAX, "%s/%s/%s", dir, place, file);
    return n < PATH_MAX && access(out, R_OK) == 0 ? 0 : -ENOENT;
}

int default_guest_find(struct default_guest *guest, struct err *err)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    if (n > 0) {
        exe[n] = '\0';
        *strrchr(exe, '/') = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(places); i++)
            if (path_join(guest->kernel, exe, places[i], "vmlinux") == 0 &&
                path_join(guest->initrd, exe, places[i], "initrd.img") == 0)
                return 0;
    }
    return err_set(
        err, -EAGAIN,
        "the default guest is not prepared: run tools/guest-prepare in the source tree (make guest), or name a kernel "
        "with --kernel FILE");
}

char *default_guest_append(const char *console, const char *more)
{
    struct winsize size;
    char tty[40] = "";
    char *append;

    if (strcmp(console, "stdio") == 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
        snprintf(tty, sizeof(tty), " vireo.tty=%ux%u", size.ws_row, size.ws_col);
    if (asprintf(&append, APPEND "%s%s%s", tty, more ? " " : "", more ? more : "") < 0)
        return NULL;
    return append;
}
