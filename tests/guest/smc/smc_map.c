/* Code that changes because what is mapped changes: other pages at the same address, aliases, copies on write, protection. */
#include "smc.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define RW        (PROT_READ | PROT_WRITE)
#define RX        (PROT_READ | PROT_EXEC)
#define RWX       (RW | PROT_EXEC)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

/* Written through one address, run through another: with a serializing instruction between (SDM vol. 3, 12.6). */
static void alias(struct run *r)
{
    int fd = smc_file(4 * PAGE);
    uint8_t *writable = smc_map_pages(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    uint8_t *executable = smc_map_pages(NULL, 4 * PAGE, RX, MAP_SHARED, fd, 0), code[RETURN_SIZE];

    for (unsigned i = 0; i < 4 * PAGE; i += 128)
        smc_put_return(writable + i, 0);
    for (unsigned i = 1; i <= r->rounds; i++) {
        unsigned offset = smc_random(r) % (4 * PAGE / 128) * 128;

        smc_put_return(code, i);
        smc_change(r, writable + offset, code, sizeof(code));
        smc_serialize();
        smc_expect(r, smc_call(executable + offset, 0), i);
    }
    munmap(writable, 4 * PAGE);
    munmap(executable, 4 * PAGE);
    close(fd);
}

/* The kernel writes to a file that is mapped as code. */
static void file(struct run *r)
{
    int fd = smc_file(PAGE);
    uint8_t *page = smc_map_pages(NULL, PAGE, RX, MAP_SHARED, fd, 0), code[RETURN_SIZE];

    smc_put_return(code, 0);
    if (pwrite(fd, code, sizeof(code), 256) != sizeof(code))
        smc_die("pwrite");
    for (unsigned i = 1; i <= r->rounds / 4; i++) {
        smc_put_return(code, i);
        if (!smc_leave_out(r) && pwrite(fd, code, sizeof(code), 256) != sizeof(code))
            smc_die("pwrite");
        smc_expect(r, smc_call(page + 256, 0), i);
    }
    munmap(page, PAGE);
    close(fd);
}

#define FILE_PAGES 16u

/* A file of pages, each with a function at its start that returns the page's number. */
static int numbered_file(void)
{
    int fd = smc_file(FILE_PAGES * PAGE);
    uint8_t code[RETURN_SIZE];

    for (unsigned i = 0; i < FILE_PAGES; i++) {
        smc_put_return(code, i);
        if (pwrite(fd, code, sizeof(code), (off_t)i * PAGE) != sizeof(code))
            smc_die("pwrite");
    }
    return fd;
}

/* Another page at the same address, in one step or by way of nothing there. */
static void remap(struct run *r)
{
    int fd = numbered_file();
    uint8_t *at = smc_map_pages(NULL, PAGE, RX, MAP_SHARED, fd, 0);
    unsigned number = 0;

    for (unsigned i = 0; i < r->rounds / 4; i++) {
        number = (number + 1 + smc_random(r) % (FILE_PAGES - 1)) % FILE_PAGES;
        if (!smc_leave_out(r)) {
            if (i % 2)
                munmap(at, PAGE);
            smc_map_pages(at, PAGE, RX, (i % 3 ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED, fd, (size_t)number * PAGE);
        }
        smc_expect(r, smc_call(at, 0), number);
    }
    munmap(at, PAGE);
    close(fd);
}

/* Code that moves, and says where it runs. */
static void move(struct run *r)
{
    static const uint8_t code[] = {0x48, 0x8d, 0x05, 0xf9,
                                   0xff, 0xff, 0xff, 0xc3}; /* lea rax, [its own address]; ret */
    uint8_t *area = smc_map_pages(NULL, 8 * PAGE, PROT_NONE, ANONYMOUS, -1, 0);
    unsigned place = 0;

    smc_map_pages(area, PAGE, RWX, ANONYMOUS | MAP_FIXED, -1, 0);
    memcpy(area + 512, code, sizeof(code));
    for (unsigned i = 0; i < r->rounds / 4; i++) {
        unsigned to = (place + 1 + smc_random(r) % 7) % 8;

        if (mremap(area + place * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + to * PAGE) == MAP_FAILED)
            smc_die("mremap");
        /* What comes to the old place runs there, and is the moved code's next place some day. */
        smc_map_pages(area + place * PAGE, PAGE, RWX, ANONYMOUS | MAP_FIXED, -1, 0);
        if (!smc_leave_out(r))
            smc_put_return(area + place * PAGE + 512, i);
        else
            memcpy(area + place * PAGE + 512, code, sizeof(code));
        smc_expect(r, smc_call(area + to * PAGE + 512, 0), (uintptr_t)(area + to * PAGE + 512));
        smc_expect(r, smc_call(area + place * PAGE + 512, 0), i);
        place = to;
    }
    munmap(area, 8 * PAGE);
}

/* Exit status of a child that calls two pages of code and compares; the parent waits for it. */
static unsigned in_child(const uint8_t *private, uint32_t due, uint8_t *change, uint32_t value, bool leave_out)
{
    pid_t child = fork();
    int status;

    if (child < 0)
        smc_die("fork");
    if (!child) {
        bool good = smc_call(private, 0) == due;

        if (!leave_out)
            smc_put_return(change, value);
        _exit(good && smc_call(change, 0) == value ? 0 : 1);
    }
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        smc_die("a child that runs code");
    return (unsigned)WEXITSTATUS(status);
}

/* Copies on write: what parent and child write to the same page is each one's own, and stays so. */
static void copies(struct run *r)
{
    uint8_t *page = smc_map_pages(NULL, PAGE, RWX, ANONYMOUS, -1, 0), code[RETURN_SIZE];

    smc_put_return(page, 0);
    for (unsigned i = 1; i <= r->rounds / 200; i++) {
        smc_put_return(code, i);
        smc_change(r, page, code, sizeof(code));
        smc_expect(r, smc_call(page, 0), i);
        smc_expect(r, in_child(page, i, page, ~i, smc_leave_out(r)), 0);
        smc_expect(r, smc_call(page, 0), i);
    }
    munmap(page, PAGE);
}

/* A child writes to code that both have. */
static void shared(struct run *r)
{
    uint8_t *page = smc_map_pages(NULL, PAGE, RWX, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    smc_put_return(page + 64, 7);
    smc_put_return(page, 0);
    for (unsigned i = 1; i <= r->rounds / 200; i++) {
        smc_expect(r, in_child(page + 64, 7, page, i, smc_leave_out(r)), 0);
        smc_serialize();
        smc_expect(r, smc_call(page, 0), i);
    }
    munmap(page, PAGE);
}

static sigjmp_buf escape;
static void *volatile fault_address;

static void on_fault(int signo, siginfo_t *info, void *context)
{
    fault_address = info->si_addr;
    siglongjmp(escape, 1);
}

/* Where calling (or, with a value, writing) faulted; NULL when it did not. */
static void *fault_of(uint8_t *at, int value)
{
    fault_address = NULL;
    if (!sigsetjmp(escape, 1)) {
        if (value < 0)
            smc_call(at, 0);
        else
            *(volatile uint8_t *)at = (uint8_t)value;
    }
    return fault_address;
}

/* Writable or executable, never both: the other use faults, at the right address; the code is the one written last. */
static void protect(struct run *r)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, before;
    uint8_t *page = smc_map_pages(NULL, PAGE, RW, ANONYMOUS, -1, 0), code[RETURN_SIZE];

    sigaction(SIGSEGV, &action, &before);
    smc_put_return(page + 32, 0);
    for (unsigned i = 1; i <= r->rounds / 20; i++) {
        smc_put_return(code, i);
        smc_change(r, page + 32, code, sizeof(code));
        smc_expect(r, (uintptr_t)fault_of(page + 32, -1), (uintptr_t)page + 32);
        if (mprotect(page, PAGE, RX))
            smc_die("mprotect");
        smc_expect(r, smc_call(page + 32, 0), i);
        smc_expect(r, (uintptr_t)fault_of(page + 33, 0), (uintptr_t)page + 33);
        if (mprotect(page, PAGE, i % 2 ? PROT_NONE : RX))
            smc_die("mprotect");
        if (i % 2)
            smc_expect(r, (uintptr_t)fault_of(page + 32, -1), (uintptr_t)page + 32);
        if (mprotect(page, PAGE, RW))
            smc_die("mprotect");
    }
    sigaction(SIGSEGV, &before, NULL);
    munmap(page, PAGE);
}

/* Code that the kernel takes away leaves zeroes, and two zeroes are an instruction: add [rax], al. */
static void discard(struct run *r)
{
    uint8_t *pages = smc_map_pages(NULL, 2 * PAGE, RWX, ANONYMOUS, -1, 0);
    uint8_t sum[512] __attribute__((aligned(256)));

    smc_put_return(pages + PAGE, 0);
    for (unsigned i = 1; i <= r->rounds / 20; i++) {
        unsigned adds = RETURN_SIZE / 2 + i % 250;
        uint8_t *at = pages + PAGE - 2 * adds;
        uint64_t target = (uintptr_t)sum | 1; /* al is 1 */

        smc_put_return(at, i);
        smc_expect(r, smc_call(at, 0), i);
        if (!smc_leave_out(r) && madvise(pages, PAGE, MADV_DONTNEED))
            smc_die("madvise");
        sum[1] = 0;
        /* Past the red zone. */
        __asm__ volatile("lea -128(%%rsp), %%rsp; call *%1; lea 128(%%rsp), %%rsp"
                         : "+a"(target)
                         : "r"(at)
                         : "memory", "cc");
        smc_expect(r, sum[1], adds);
    }
    munmap(pages, 2 * PAGE);
}

const struct smc_case smc_map[] = {
    {"alias", alias},   {"file", file},       {"remap", remap},     {"move", move}, {"copies", copies},
    {"shared", shared}, {"protect", protect}, {"discard", discard}, {NULL, NULL},
};
