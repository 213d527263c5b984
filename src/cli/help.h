/*
 * Texts made from the tables of commands and options: --help, the manual page (man(7) macros) and bash completion.
 */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

#include "cli/option.h"

struct help_command {
    const char *name, *summary;
    const struct option_table *options;
};

extern const struct help_command help_commands[];
extern const size_t help_n_commands;

void help_program(FILE *out);
void help_command(FILE *out, const char *name);
/* Of a command that has commands of its own, such as "disk". */
void help_family(FILE *out, const char *name);
void help_man(FILE *out, const char *version);
void help_completion(FILE *out);

#endif
