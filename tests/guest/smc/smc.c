/*
 * usage: smc [--rounds N] [--stale N] [CASE...]
 *
 * Runs the cases and reports each as a line of TAP with the number of results checked. With --stale, one change of code in N is
 * left out, which leaves code that is out of date: every case must then fail. Exit status: 0, 1 when a case failed, 2 for wrong use.
 */
#include "smc.h"

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void smc_die(const char *what)
{
    fflush(stdout);
    perror(what);
    _exit(1);
}

void smc_expect_range(struct run *r, uint64_t got, uint64_t first, uint64_t last)
{
    r->checked++;
    if (got >= first && got <= last)
        return;
    if (!r->wrong++) {
        r->first[0] = got;
        r->first[1] = first;
    }
}

void smc_expect(struct run *r, uint64_t got, uint64_t due)
{
    smc_expect_range(r, got, due, due);
}

bool smc_leave_out(struct run *r)
{
    return r->stale && ++r->changes % r->stale == 0;
}

uint32_t smc_random(struct run *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 17;
    r->random ^= r->random << 5;
    return r->random;
}

void smc_put_return(uint8_t *code, uint32_t value)
{
    code[0] = 0xb8;
    memcpy(code + 1, &value, sizeof(value));
    code[5] = 0xc3;
}

void smc_change(struct run *r, void *to, const void *code, size_t size)
{
    if (!smc_leave_out(r))
        memcpy(to, code, size);
}

/* Not inlined, and memory is clobbered: the compiler must not move the writing of code across the call. */
__attribute__((noinline)) uint64_t smc_call(const void *code, uint64_t argument)
{
    smc_fn *fn = (smc_fn *)(uintptr_t)code;

    __asm__ volatile("" ::: "memory");
    return fn(argument);
}

void smc_serialize(void)
{
    unsigned a, b, c, d;

    __asm__ volatile("" ::: "memory");
    __cpuid(0, a, b, c, d);
    __asm__ volatile("" ::"r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

void *smc_map_pages(void *at, size_t size, int prot, int flags, int fd, size_t offset)
{
    void *pages = mmap(at, size, prot, flags, fd, (off_t)offset);

    if (pages == MAP_FAILED)
        smc_die("mmap");
    return pages;
}

int smc_file(size_t size)
{
    int fd = memfd_create("smc", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)size))
        smc_die("memfd");
    return fd;
}

static bool wanted(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

/* Returns whether it passed. */
static bool run_case(const struct smc_case *c, unsigned number, unsigned rounds, unsigned stale)
{
    struct run r = {.rounds = rounds, .stale = stale, .random = 2463534242};

    c->run(&r);
    if (r.skip) {
        printf("ok %u - %s # SKIP %s\n", number, c->name, r.skip);
    } else if (r.wrong || !r.checked) {
        printf("not ok %u - %s # %llu of %llu results wrong, the first one 0x%llx for 0x%llx\n", number, c->name,
               (unsigned long long)r.wrong, (unsigned long long)r.checked, (unsigned long long)r.first[0],
               (unsigned long long)r.first[1]);
    } else {
        printf("ok %u - %s # %llu results\n", number, c->name, (unsigned long long)r.checked);
    }
    fflush(stdout);
    return r.skip || (!r.wrong && r.checked);
}

static unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text ? text : "", &end, 10);

    if (!text || *end || value < 1 || value > 1000000000) {
        fprintf(stderr, "smc: '%s' is no number from 1 to 1000000000\n", text ? text : "");
        exit(2);
    }
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    const struct smc_case *const groups[] = {smc_self, smc_map, smc_cross};
    unsigned rounds = 20000, stale = 0, count = 0;
    bool good = true;

    for (argv++; *argv && **argv == '-'; argv++) {
        if (!strcmp(*argv, "--rounds")) {
            rounds = number(*++argv);
        } else if (!strcmp(*argv, "--stale")) {
            stale = number(*++argv);
        } else {
            fprintf(stderr, "smc: '%s' is no option; usage: smc [--rounds N] [--stale N] [CASE...]\n", *argv);
            return 2;
        }
    }
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        for (const struct smc_case *c = groups[i]; c->name; c++)
            if (wanted(c->name, argv) && !run_case(c, ++count, rounds, stale))
                good = false;
    if (!count) {
        fprintf(stderr, "smc: no case has one of these names\n");
        return 2;
    }
    printf("1..%u\n", count);
    return good ? 0 : 1;
}
