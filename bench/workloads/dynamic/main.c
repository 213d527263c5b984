/* bench-dynamic: what the workload fork_dynamic runs, with the arguments --exit STATUS; a program of its own, linked dynamically. */
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], "--exit") == 0 ? atoi(argv[2]) : 2;
}
