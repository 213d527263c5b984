#include "cli/help.h"

#include "cli/ctl_options.h"
#include "cli/disk_options.h"
#include "cli/engines_options.h"
#include "cli/run_options.h"
#include "cli/switch_options.h"

#define COLUMNS     100
#define TEXT_COLUMN 28

#define COMMON_STATUSES 3

const struct help_command help_commands[] = {
#define COMMAND(name, summary) {#name, summary, &name##_option_table},
#include "cli/commands.def"
#undef COMMAND
#define DISK_COMMAND(name, summary) {"disk " #name, summary, &disk_##name##_option_table},
#include "cli/disk_commands.def"
#undef DISK_COMMAND
};
const size_t help_n_commands = ARRAY_SIZE(help_commands);

struct choice {
    const char *name, *help;
};

static const struct choice consoles[] = {
#define CONSOLE(name, open, arg, help) {#name arg, help},
#include "console/console.def"
#undef CONSOLE
};

/* Of every command, and then of those that run a guest. */
static const struct choice statuses[] = {
    {"0", "done; of run: the guest powered off, or its user ended it with Ctrl-A x"},
    {"1", "vireo failed, or the host did"},
    {"2", "wrong use: an option, its value, or a file it names"},
    {"3", "the guest reset under --no-reboot, or crashed by a triple fault; of disk compare: the images differ"},
    {"4", "the time of --timeout was up"},
    {"(v << 1) | 1", "the guest wrote v to port 0xf4 under --debug-exit"},
};

/* `left` indented by two, then `text` from TEXT_COLUMN on, wrapped. */
static void print_entry(FILE *out, const char *left, const char *text)
{
    int column = fprintf(out, "  %s", left);

    if (column >= TEXT_COLUMN - 1) {
        fputc('\n', out);
        column = 0;
    }
    column += fprintf(out, "%*s", TEXT_COLUMN - column, "");
    for (bool first = true; *text; first = false) {
        size_t len = strcspn(text, " ");
        if (!first && (size_t)column + 1 + len > COLUMNS)
            column = fprintf(out, "\n%*s", TEXT_COLUMN, "") - 1;
        else if (!first)
            column += fprintf(out, " ");
        column += fprintf(out, "%.*s", (int)len, text);
        text += len + (text[len] == ' ');
    }
    fputc('\n', out);
}

void help_program(FILE *out)
{
    fputs("vireo runs virtual machines on x86-64 Linux.\n\n"
          "usage: vireo COMMAND [OPTION...]\n"
          "       vireo COMMAND --help\n"
          "       vireo --version\n\ncommands:\n",
          out);
    for (size_t i = 0; i < help_n_commands; i++)
        if (!strchr(help_commands[i].name, ' '))
            print_entry(out, help_commands[i].name, help_commands[i].summary);
}

/* Whether the command belongs to the family, and what it is called there. */
static const char *name_within(const struct help_command *c, const char *family)
{
    size_t len = strlen(family);
    return strncmp(c->name, family, len) == 0 && c->name[len] == ' ' ? c->name + len + 1 : NULL;
}

void help_family(FILE *out, const char *name)
{
    fprintf(out, "usage: vireo %s COMMAND [OPTION...]\n       vireo %s COMMAND --help\n\ncommands:\n", name, name);
    for (size_t i = 0; i < help_n_commands; i++)
        if (name_within(&help_commands[i], name))
            print_entry(out, name_within(&help_commands[i], name), help_commands[i].summary);
}

static void print_option(FILE *out, const struct option_spec *spec)
{
    const char *argument = option_argument(spec);
    char left[128], text[512];

    if (spec->kind == OPTION_WORDS)
        snprintf(left, sizeof(left), "%s", argument);
    else
        snprintf(left, sizeof(left), "--%s%s%s", spec->name, argument ? " " : "", argument ? argument : "");
    snprintf(text, sizeof(text), "%s%s%s%s", spec->help, spec->fallback ? " (default: " : "",
             spec->fallback ? spec->fallback : "", spec->fallback ? ")" : "");
    print_entry(out, left, text);
}

/* What stands behind the command's name without an option, or "". */
static const char *words_of(const struct help_command *c)
{
    for (size_t i = 0; i < c->options->n; i++)
        if (c->options->specs[i].kind == OPTION_WORDS)
            return c->options->specs[i].argument;
    return "";
}

static bool has_console(const struct option_table *options)
{
    for (size_t i = 0; i < options->n; i++)
        if (options->specs[i].kind == OPTION_CONSOLE)
            return true;
    return false;
}

static void print_consoles(FILE *out)
{
    fputs("\nconsoles:\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(consoles); i++)
        print_entry(out, consoles[i].name, consoles[i].help);
    fputs("\nkeys, where the console is the terminal: Ctrl-A x ends the VM, Ctrl-A p presses its\n"
          "power button, Ctrl-A h lists the keys, Ctrl-A Ctrl-A sends Ctrl-A to the guest.\n",
          out);
}

void help_command(FILE *out, const char *name)
{
    size_t n_statuses = ARRAY_SIZE(statuses);

    for (size_t i = 0; i < help_n_commands; i++) {
        const struct help_command *c = &help_commands[i];
        if (strcmp(c->name, name) != 0)
            continue;
        fprintf(out, "vireo %s - %s\n\nusage: vireo %s%s%s [OPTION...]   (--name VALUE or --name=VALUE)\n\noptions:\n",
                c->name, c->summary, c->name, *words_of(c) ? " " : "", words_of(c));
        for (size_t j = 0; j < c->options->n; j++)
            print_option(out, &c->options->specs[j]);
        if (has_console(c->options))
            print_consoles(out);
        else
            n_statuses = COMMON_STATUSES;
    }
    fputs("\nexit status:\n", out);
    for (size_t i = 0; i < n_statuses; i++)
        print_entry(out, statuses[i].name, statuses[i].help);
}

/* Text for troff: dashes that are dashes, no backslash or leading dot of its own. */
static void man_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
    }
}

static void man_entry(FILE *out, const char *name, const char *argument, const char *text, const char *fallback)
{
    fputs(".TP\n.B ", out);
    man_text(out, name);
    if (argument) {
        fputs(" \\fI", out);
        man_text(out, argument);
        fputs("\\fR", out);
    }
    fputs("\n\\&", out);
    man_text(out, text);
    if (fallback) {
        fputs(" (default: ", out);
        man_text(out, fallback);
        fputc(')', out);
    }
    fputs(".\n", out);
}

void help_man(FILE *out, const char *version)
{
    char name[64];

    fprintf(out, ".TH VIREO 1 \"\" \"vireo %s\" \"User Commands\"\n", version);
    fputs(".SH NAME\nvireo \\- run virtual machines\n.SH SYNOPSIS\n", out);
    for (size_t i = 0; i < help_n_commands; i++)
        fprintf(out, ".B vireo %s\n%s\n.RI [ OPTION ...]\n.br\n", help_commands[i].name,
                *words_of(&help_commands[i]) ? words_of(&help_commands[i]) : "\\&");
    fputs(".B vireo \\-\\-version\n.SH DESCRIPTION\n"
          "vireo runs whole, unmodified operating systems on x86-64 Linux, with or without the CPU's own "
          "virtualization.\n"
          "It needs no privileges.\n",
          out);
    for (size_t i = 0; i < help_n_commands; i++) {
        const struct help_command *c = &help_commands[i];
        fprintf(out, ".SH \"VIREO %s\"\nvireo %s: ", c->name, c->name);
        man_text(out, c->summary);
        fputs(".\nA value follows its option after a space or an equals sign.\n", out);
        for (size_t j = 0; j < c->options->n; j++) {
            const struct option_spec *spec = &c->options->specs[j];
            bool words = spec->kind == OPTION_WORDS;
            snprintf(name, sizeof(name), "%s%s", words ? "" : "--", words ? spec->argument : spec->name);
            man_entry(out, name, words ? NULL : option_argument(spec), spec->help, spec->fallback);
        }
    }
    fputs(".SH BACKUPS\n"
          "A snapshot inside an image is no backup. It is in the same file: it goes when the file is deleted, when its "
          "disk or file\n"
          "system dies, when its metadata is damaged, or when whoever has the VM deletes it; and blocks that did not "
          "change are\n"
          "there once, for the disk and all its snapshots. It is for going back quickly. A backup is a copy in another "
          "place, with\n"
          "checksums that were computed when it was made, and needs nothing of the original. So \\fBvireo disk "
          "backup\\fR refuses a\n"
          "directory on the file system, or the disk, that the image is on, unless \\fB\\-\\-same\\-disk\\-anyway\\fR "
          "is given.\n",
          out);
    fputs(".SH CONSOLES\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(consoles); i++)
        man_entry(out, consoles[i].name, NULL, consoles[i].help, NULL);
    fputs(".SH KEYS\nOn a terminal, Ctrl\\-A is the way to vireo itself:\n", out);
    man_entry(out, "Ctrl-A x", NULL, "end the VM", NULL);
    man_entry(out, "Ctrl-A p", NULL, "press the VM's power button", NULL);
    man_entry(out, "Ctrl-A h", NULL, "list the keys", NULL);
    man_entry(out, "Ctrl-A Ctrl-A", NULL, "send Ctrl-A to the guest", NULL);
    fputs(".SH \"EXIT STATUS\"\n", out);
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        man_entry(out, statuses[i].name, NULL, statuses[i].help, NULL);
}

/* Quotes are the caller's; option names and arguments hold none. */
void help_completion(FILE *out)
{
    fputs("# bash completion for vireo, made from its tables of commands and options\n"
          "_vireo()\n{\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=\n"
          "    # bash splits --name=VALUE into three words\n"
          "    [ \"$cur\" = = ] && cur=\n"
          "    [ \"$prev\" = = ] && prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        words='--help --version",
          out);
    for (size_t i = 0; i < help_n_commands; i++)
        if (!strchr(help_commands[i].name, ' '))
            fprintf(out, " %s", help_commands[i].name);
    fputs("'\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n"
          "    local command=${COMP_WORDS[1]}\n"
          "    [ \"$command\" = disk ] && [ \"$COMP_CWORD\" -gt 2 ] && command=\"disk ${COMP_WORDS[2]}\"\n"
          "    case $command in\n",
          out);
    for (size_t i = 0; i < help_n_commands; i++) {
        const struct option_table *options = help_commands[i].options;
        fprintf(out, "    '%s')\n        case $prev in\n", help_commands[i].name);
        for (size_t j = 0; j < options->n; j++) {
            const struct option_spec *spec = &options->specs[j];
            if (spec->kind == OPTION_FILE || spec->kind == OPTION_OUTPUT)
                fprintf(out, "        --%s) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n",
                        spec->name);
            else if (spec->kind == OPTION_ENGINE || spec->kind == OPTION_CONSOLE || spec->kind == OPTION_CPU) {
                fprintf(out, "        --%s) words='", spec->name);
                for (const char *p = option_argument(spec); *p; p++)
                    if (strncmp(p, ":PATH", 5) == 0)
                        p += 4;
                    else
                        fputc(*p == '|' ? ' ' : *p, out);
                fputs("' ;;\n", out);
            } else if (spec->kind != OPTION_FLAG && spec->kind != OPTION_WORDS) {
                fprintf(out, "        --%s) return ;;\n", spec->name);
            }
        }
        fputs("        *) words='--help", out);
        for (size_t j = 0; j < options->n; j++)
            if (options->specs[j].kind != OPTION_WORDS)
                fprintf(out, " --%s", options->specs[j].name);
        for (size_t j = 0; j < help_n_commands; j++)
            if (name_within(&help_commands[j], help_commands[i].name))
                fprintf(out, " %s", name_within(&help_commands[j], help_commands[i].name));
        fputs("' ;;\n        esac\n        ;;\n", out);
    }
    fputs("    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _vireo vireo\n", out);
}
