/*
 * The commands of `vireo disk`, from disk_commands.def, and what they share.
 */
#ifndef CLI_DISK_H
#define CLI_DISK_H

#include <jansson.h>

#include "cli/command.h"

#define DISK_COMMAND(name, summary) int command_disk_##name(int argc, char **argv);
#include "cli/disk_commands.def"
#undef DISK_COMMAND

/*
 * Reads the options of `vireo disk NAME` into its struct, and sees that there are `least` to `most` words. False: the command is over, with *status; help or
 * an error was printed.
 */
bool disk_command_parse(const char *name, int argc, char **argv, void *values, unsigned least, unsigned most,
                        int *status) MUST_CHECK;

/* Prints `json`, which it takes; NULL is -ENOMEM. */
int disk_command_print(json_t *json) MUST_CHECK;

#endif
