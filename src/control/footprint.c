#include "control/footprint.h"

#include <string.h>

#include "base/util.h"
#include "core/ram.h"

/* A mapping begins with "7f12a000-7f12b000 rw-s 00000000 00:01 5   /memfd:guest-ram (deleted)"; what follows is "Key:  value". */
static bool is_mapping(const char *line)
{
    unsigned long long from, to;

    return sscanf(line, "%llx-%llx ", &from, &to) == 2;
}

struct footprint footprint_read(FILE *smaps)
{
    struct footprint f = {0};
    bool guest = false, line_begins = true;
    unsigned long long kib;
    char line[512]; /* a longer one has a long path, which guest RAM's is not; its rest is no line */

    while (fgets(line, sizeof(line), smaps)) {
        if (line_begins && is_mapping(line))
            guest = strstr(line, "/memfd:" RAM_MEMFD_NAME " ") != NULL;
        else if (line_begins && sscanf(line, "Pss: %llu kB", &kib) == 1)
            *(guest ? &f.guest : &f.own) += kib * KIB;
        line_begins = strchr(line, '\n') != NULL;
    }
    return f;
}
