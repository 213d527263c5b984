/* Built and run while vireo is built: prints the manual page or the bash completion. usage: make_docs man|completion [VERSION] */
#include "cli/help.h"

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "man") == 0)
        help_man(stdout, argv[2]);
    else if (argc == 2 && strcmp(argv[1], "completion") == 0)
        help_completion(stdout);
    else
        return 2;
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
