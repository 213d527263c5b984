/*
 * Code that changes while it runs, in every way a program can bring it about. Each case writes code that returns a number, runs it, and
 * holds the number against what x86 promises; a result of code that is no longer there counts as wrong.
 */
#ifndef SMC_H
#define SMC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096u

struct run {
    unsigned rounds;   /* how often a case changes code; it divides by what a change costs it */
    unsigned stale;    /* one change in so many is left out, to see that the case notices; 0: none */
    unsigned changes;  /* so far */
    uint64_t checked;  /* results */
    uint64_t wrong;    /* of those */
    uint64_t first[2]; /* the first wrong one: what came, what was due */
    uint32_t random;   /* state of smc_random() */
    const char *skip;  /* why this host cannot run the case, or NULL */
};

struct smc_case {
    const char *name;
    void (*run)(struct run *r);
};

/* The cases: one CPU by itself, through mappings, and one CPU that changes what another one runs. Each ends with a NULL name. */
extern const struct smc_case smc_self[], smc_map[], smc_cross[];

typedef uint64_t smc_fn(uint64_t argument);

/* A result, and what it had to be. */
void smc_expect(struct run *r, uint64_t got, uint64_t due);
/* A result, and the first and last of what it might be. */
void smc_expect_range(struct run *r, uint64_t got, uint64_t first, uint64_t last);
/* Whether to leave out the change of code that comes now. */
bool smc_leave_out(struct run *r);
/* xorshift; the same in each run of a case. */
uint32_t smc_random(struct run *r);

/* Writes "mov eax, value; ret", 6 bytes. */
void smc_put_return(uint8_t *code, uint32_t value);
#define RETURN_SIZE 6u

/* Copies changed code into place, unless it is to be left out. */
void smc_change(struct run *r, void *to, const void *code, size_t size);
/* Calls code with an argument. */
uint64_t smc_call(const void *code, uint64_t argument);
/* Executes CPUID, which serializes (SDM vol. 3, 9.3). */
void smc_serialize(void);

/* mmap() that ends the program when it fails. */
void *smc_map_pages(void *at, size_t size, int prot, int flags, int fd, size_t offset);
/* A memory file of that size. */
int smc_file(size_t size);
/* Ends the program: what failed, and errno. */
_Noreturn void smc_die(const char *what);

#endif
