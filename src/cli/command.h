/*
 * The commands of `vireo`, from commands.def, and how they tell how it went.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "cli/option.h"

/* What vireo's exit status says. Debug exit adds (v << 1) | 1. */
enum status {
    STATUS_OK,                       /* the guest powered off, or its user ended it */
    STATUS_FAILED,                   /* vireo or the host failed */
    STATUS_USAGE,                    /* wrong use: an option, its value, or a file it names */
    STATUS_GUEST,                    /* the guest crashed, or reset under --no-reboot */
    STATUS_TIMEOUT,                  /* --timeout passed */
    STATUS_DIFFERENT = STATUS_GUEST, /* of disk compare: the images differ */
};

struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* what follows the command's name; returns the exit status */
};

#define COMMAND(name, summary) int command_##name(int argc, char **argv);
#include "cli/commands.def"
#undef COMMAND

/* Prints `err` as one line whatever is in it; returns the status for the error `code`: whose fault it was. */
int command_fail(int code, const struct err *err);

#endif
