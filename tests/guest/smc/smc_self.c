/* One CPU changes its own code. The next control transfer sees it; on every CPU in use, so does the next instruction (SDM vol. 3, 12.6). */
#include "smc.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define RWX       (PROT_READ | PROT_WRITE | PROT_EXEC)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static uint8_t *code_pages(unsigned pages)
{
    return smc_map_pages(NULL, pages * PAGE, RWX, ANONYMOUS, -1, 0);
}

/* A function is written anew and called, here and there in a page. */
static void rewrite(struct run *r)
{
    uint8_t *page = code_pages(1), code[RETURN_SIZE];

    for (unsigned i = 0; i < 64; i++)
        smc_put_return(page + i * 64, 0);
    for (unsigned i = 1; i <= r->rounds; i++) {
        uint8_t *at = page + smc_random(r) % 64 * 64;

        smc_put_return(code, i);
        smc_change(r, at, code, sizeof(code));
        smc_expect(r, smc_call(at, 0), i);
        smc_expect(r, smc_call(at, 0), i);
    }
    munmap(page, PAGE);
}

/* An instruction changes the immediate of one ahead of it in straight line, 0 to 31 NOPs away. */
static void ahead(struct run *r)
{
    uint8_t *page = code_pages(1);

    for (unsigned i = 0; i < r->rounds; i++) {
        unsigned gap = i / 16 % 32;
        /* mov [rip + d], edi; NOPs; mov eax, imm; ret. Where the change is left out, d leads behind the RET. */
        int32_t displacement = (int32_t)gap + (smc_leave_out(r) ? 64 : 1);

        if (i % 16 == 0) {
            memset(page + 6, 0x90, gap);
            smc_put_return(page + 6 + gap, 0);
        }
        memcpy(page, (uint8_t[]){0x89, 0x3d}, 2);
        memcpy(page + 2, &displacement, 4);
        smc_expect(r, smc_call(page, i + 1), i + 1);
    }
    munmap(page, PAGE);
}

/* A loop adds a number that it increments in its own code. */
static void loop(struct run *r)
{
    static const uint8_t code[] = {
        0x31, 0xc0,                         /* xor eax, eax */
        0x05, 1,    0,    0,    0,          /* top: add eax, 1 */
        0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, /* inc dword [top + 1] */
        0xff, 0xcf,                         /* dec edi */
        0x75, 0xf1,                         /* jnz top */
        0xc3,                               /* ret */
    };
    uint8_t *page = code_pages(1);

    for (unsigned i = 0; i < r->rounds / 16; i++) {
        uint8_t *at = page + i % 64 * 32;
        unsigned n = 2 + i % 40;

        memcpy(at, code, sizeof(code));
        if (smc_leave_out(r))
            memcpy(at + 9, (uint8_t[4]){64}, 4); /* the increment goes elsewhere */
        smc_expect(r, smc_call(at, n), n * (n + 1) / 2);
    }
    munmap(page, PAGE);
}

/* REP MOVSB brings the code that it falls through to. */
static void string(struct run *r)
{
    static const uint8_t code[] = {
        0x48, 0x89,        0xfe,             /* mov rsi, rdi */
        0x48, 0x8d,        0x3d, 7, 0, 0, 0, /* lea rdi, [behind REP MOVSB] */
        0xb9, RETURN_SIZE, 0,    0, 0,       /* mov ecx, RETURN_SIZE */
        0xf3, 0xa4,                          /* rep movsb */
    };
    uint8_t *page = code_pages(1), source[RETURN_SIZE];

    for (unsigned i = 0; i < r->rounds / 2; i++) {
        uint8_t *at = page + i / 8 % 64 * 48;

        if (i % 8 == 0) {
            memcpy(at, code, sizeof(code));
            smc_put_return(at + sizeof(code), 0);
        }
        smc_put_return(source, i + 1);
        smc_expect(r, smc_call(at, (uintptr_t)(smc_leave_out(r) ? at + sizeof(code) : source)), i + 1);
    }
    munmap(page, PAGE);
}

/* A counter in the same cache line as the code that counts, and other data in the same page. */
static void mixed(struct run *r)
{
    /* add qword [data], 1; mov rax, [data]; ret; data is at offset 32 */
    static const uint8_t code[] = {0x48, 0x83, 0x05, 24, 0, 0, 0, 1, 0x48, 0x8b, 0x05, 17, 0, 0, 0, 0xc3};
    uint8_t *page = code_pages(1), *at = page + 1024, step = 1;
    uint64_t due = 0;

    memcpy(at, code, sizeof(code));
    for (unsigned i = 0; i < r->rounds; i++) {
        page[smc_random(r) % 1024] = (uint8_t)i;
        if (i % 16 == 15) {
            step = (uint8_t)(1 + i / 16 % 100);
            smc_change(r, at + 7, &step, 1);
        }
        due += step;
        smc_expect(r, smc_call(at, 0), due);
    }
    munmap(page, PAGE);
}

/* An instruction across two pages, one of which changes. */
static void straddle(struct run *r)
{
    uint8_t *pages = code_pages(2);

    for (unsigned i = 0; i < r->rounds; i++) {
        unsigned first = 1 + i / 16 % 5; /* bytes in the first page */
        uint8_t *at = pages + PAGE - first;
        uint32_t value = smc_random(r) | 0x01010101;

        if (i % 16 == 0)
            smc_put_return(at, 0);
        if (i & 1) { /* only what lies in the second page, else only the first */
            memcpy(&value, at + 1, first - 1);
            smc_change(r, pages + PAGE, (uint8_t *)&value + first - 1, 5 - first);
        } else {
            memcpy((uint8_t *)&value + first - 1, pages + PAGE, 5 - first);
            smc_change(r, at + 1, &value, first - 1);
        }
        smc_expect(r, smc_call(at, 0), value);
    }
    munmap(pages, 2 * PAGE);
}

/* The same bytes run from two starts: as the immediate of one instruction, and as an instruction. */
static void overlap(struct run *r)
{
    /* mov eax, 0x90c3VVb0; ret. From the second byte on: mov al, 0xVV; ret */
    uint8_t *page = code_pages(1);
    static const uint8_t code[] = {0xb8, 0xb0, 0, 0xc3, 0x90, 0xc3};

    memcpy(page, code, sizeof(code));
    for (unsigned i = 0; i < r->rounds; i++) {
        uint8_t value = (uint8_t)(i * 7 + 1);

        smc_change(r, page + 2, &value, 1);
        smc_expect(r, smc_call(page, 0), 0x90c300b0 | value << 8);
        smc_expect(r, smc_call(page + 1, 0) & 0xff, value);
    }
    munmap(page, PAGE);
}

#define LINKS 512u
#define ARENA (256 * PAGE)

/* Many functions, each of which adds its number and jumps to the next; numbers and jumps change all the time, as a JIT's do. */
static void chain(struct run *r)
{
    uint8_t *arena = code_pages(ARENA / PAGE), *at[LINKS];
    uint32_t add[LINKS];
    unsigned next[LINKS];

    for (unsigned i = 0; i < LINKS; i++) { /* add rdi, number; jmp next */
        at[i] = arena + (size_t)i * (ARENA / LINKS) + smc_random(r) % (ARENA / LINKS - 12);
        add[i] = i;
        next[i] = i + 1;
        memcpy(at[i], (uint8_t[]){0x48, 0x81, 0xc7, 0, 0, 0, 0, 0xe9}, 8);
        memcpy(at[i] + 3, &add[i], 4);
    }
    memcpy(at[LINKS - 1], (uint8_t[]){0x48, 0x89, 0xf8, 0xc3}, 4); /* mov rax, rdi; ret */
    for (unsigned i = 0; i < LINKS - 1; i++) {
        int32_t displacement = (int32_t)(at[i + 1] - (at[i] + 12));
        memcpy(at[i] + 8, &displacement, 4);
    }
    for (unsigned round = 0; round < r->rounds / 32; round++) {
        uint64_t due = round;

        for (unsigned n = 0; n < 8; n++) {
            unsigned i = smc_random(r) % (LINKS - 1);
            int32_t displacement;

            add[i] = smc_random(r) >> 8;
            smc_change(r, at[i] + 3, &add[i], 4);
            i = smc_random(r) % (LINKS - 1);
            next[i] = i + 1 + smc_random(r) % 3;
            if (next[i] >= LINKS)
                next[i] = LINKS - 1;
            displacement = (int32_t)(at[next[i]] - (at[i] + 12));
            memcpy(at[i] + 8, &displacement, 4);
        }
        for (unsigned i = 0; i < LINKS - 1; i = next[i])
            due += add[i];
        smc_expect(r, smc_call(arena + (at[0] - arena), round), due);
    }
    munmap(arena, ARENA);
}

/* The kernel writes code: read() into it, process_vm_writev(), and /proc/self/mem, which may write where the program may not. */
static void kernel(struct run *r)
{
    uint8_t *pages = code_pages(2), code[RETURN_SIZE];
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC), ends[2];

    if (memory < 0 || pipe(ends))
        smc_die("/proc/self/mem");
    smc_put_return(pages, 0);
    smc_put_return(pages + PAGE, 0);
    if (mprotect(pages + PAGE, PAGE, PROT_READ | PROT_EXEC))
        smc_die("mprotect");
    for (unsigned i = 1; i <= r->rounds / 4; i++) {
        uint8_t *at = i % 3 == 2 ? pages + PAGE : pages;
        struct iovec from = {code, sizeof(code)}, to = {at, sizeof(code)};
        ssize_t done = sizeof(code);

        smc_put_return(code, i);
        if (!smc_leave_out(r)) {
            if (i % 3 == 0)
                done = write(ends[1], code, sizeof(code)) == sizeof(code) ? read(ends[0], at, sizeof(code)) : -1;
            else if (i % 3 == 1)
                done = process_vm_writev(getpid(), &from, 1, &to, 1, 0);
            else
                done = pwrite(memory, code, sizeof(code), (off_t)(uintptr_t)at);
        }
        if (done != sizeof(code))
            smc_die("writing code through the kernel");
        smc_expect(r, smc_call(at, 0), i);
    }
    close(memory);
    close(ends[0]);
    close(ends[1]);
    munmap(pages, 2 * PAGE);
}

const struct smc_case smc_self[] = {
    {"rewrite", rewrite},   {"ahead", ahead},     {"loop", loop},   {"string", string}, {"mixed", mixed},
    {"straddle", straddle}, {"overlap", overlap}, {"chain", chain}, {"kernel", kernel}, {NULL, NULL},
};
