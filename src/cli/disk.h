/*
 * The commands of `vireo disk`, from disk_commands.def, and what they share.
 */
#ifndef CLI_DISK_H
#define CLI_DISK_H

#include <jansson.h>

#include "cli/command.h"
#include "cli/option.h"
#include "disk/disk_allow.h"

#define DISK_COMMAND(name, summary) int command_disk_##name(int argc, char **argv);
#include "cli/disk_commands.def"
#undef DISK_COMMAND

/*
 * Reads the options of `vireo disk NAME` into its struct, and sees that there are `least` to `most` words. False: the command is over, with *status; help or
 * an error was printed.
 */
bool disk_command_parse(const char *name, int argc, char **argv, void *values, unsigned least, unsigned most,
                        int *status) MUST_CHECK;

/* What --backing and the host's list permit, and `more` beside them, unless it is NULL. */
int disk_command_allow(const struct option_list *backing, const char *more, struct disk_allow **allow,
                       struct err *err) MUST_CHECK;

/*
 * Makes a name that an image has fit for a terminal and for JSON, in place: control characters, and what is no UTF-8, become question marks. Returns it.
 */
char *disk_command_clean(char *name);

/* Prints `json`, which it takes; NULL is -ENOMEM. */
int disk_command_print(json_t *json) MUST_CHECK;

#endif
