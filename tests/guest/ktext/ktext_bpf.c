/* Programs that the kernel compiles to machine code, runs on each packet, and frees for others to take the place. */
#include "ktext.h"

#include <linux/bpf.h>
#include <linux/filter.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PACKET 256

/* Sends a packet through a pair of sockets; returns how much of it the receiver's filter let through. */
static uint64_t through(const int ends[2], const uint8_t *packet)
{
    uint8_t back[PACKET];
    ssize_t got;

    if (send(ends[0], packet, PACKET, 0) != PACKET || (got = recv(ends[1], back, sizeof(back), 0)) < 0)
        ktext_die("a packet");
    return (uint64_t)got;
}

struct filters {
    pthread_t thread;
    unsigned number;
    struct run run;
};

/*
 * Filters of 4 to 63 instructions, each with constants of its own. A filter returns how many bytes to let through: here, what
 * arithmetic on two bytes of the packet gives, modulo 128.
 */
static void *filter(void *argument)
{
    struct filters *f = argument;
    uint8_t packet[PACKET];
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends))
        ktext_die("socketpair");
    for (unsigned i = 0; i < f->run.rounds * 4; i++) {
        struct sock_filter code[64];
        struct sock_fprog program = {.filter = code};
        unsigned n = 0, steps = 1 + (i * 7 + f->number * 13) % 60;
        uint32_t due;

        for (unsigned k = 0; k < PACKET; k++)
            packet[k] = (uint8_t)(k * 3 + i * 5 + f->number);
        due = packet[i % PACKET];
        code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_B | BPF_ABS, i % PACKET);
        for (unsigned k = 0; k < steps; k++) {
            code[n++] = k % 2 ? (struct sock_filter)BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, i + k)
                              : (struct sock_filter)BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, i + k + 3);
            due = k % 2 ? due ^ (i + k) : due * (i + k + 3);
        }
        code[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 127);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
        program.len = (unsigned short)n;
        due &= 127;
        if (!due)
            continue; /* it would be dropped, and recv() wait */
        if (setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
            ktext_die("SO_ATTACH_FILTER");
        for (unsigned k = 0; k < 8; k++)
            ktext_expect(&f->run, "a filtered packet", through(ends, packet), due);
    }
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

/* More threads than CPUs, each with one filter after another; the compiler goes on and off meanwhile. */
static void filters(struct run *r)
{
    struct filters threads[8];
    unsigned count = ktext_cpus() < 4 ? 2 * ktext_cpus() : 8;

    for (unsigned i = 0; i < count; i++) {
        threads[i] = (struct filters){.number = i, .run = {.rounds = r->rounds}};
        if (pthread_create(&threads[i].thread, NULL, filter, &threads[i]))
            ktext_die("pthread_create");
    }
    for (unsigned i = 0; i < r->rounds; i++) {
        ktext_write("/proc/sys/net/core/bpf_jit_enable", "%u", i % 4 != 3);
        ktext_write("/proc/sys/net/core/bpf_jit_harden", "%u", i % 3);
        ktext_getppid(100);
    }
    ktext_write("/proc/sys/net/core/bpf_jit_enable", "1");
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i].thread, NULL);
        r->checked += threads[i].run.checked;
        if (threads[i].run.wrong && !r->wrong)
            memcpy(r->first, threads[i].run.first, sizeof(r->first));
        r->wrong += threads[i].run.wrong;
    }
}

static int bpf(int command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* How often a program ran while statistics were on; the number is the kernel's. */
static unsigned long run_count(int program)
{
    char path[64], *text, *at;
    unsigned long count;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", program);
    text = ktext_read(path);
    at = strstr(text, "run_cnt:");
    count = at ? strtoul(at + 8, NULL, 10) : ~0ul;
    free(text);
    return count;
}

/* A static key counts runs of a compiled program; and the program is compiled indeed. */
static void statistics(struct run *r)
{
    /* r0 = 100; exit */
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 100}, {.code = BPF_JMP | BPF_EXIT}};
    struct bpf_prog_info info = {0};
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
                           .insns = (uintptr_t)code,
                           .insn_cnt = 2,
                           .license = (uintptr_t) "GPL"};
    int ends[2], program;
    uint8_t packet[PACKET] = {0};
    struct load *load;

    ktext_write("/proc/sys/net/core/bpf_jit_enable", "1");
    ktext_write("/proc/sys/net/core/bpf_jit_harden", "0");
    program = bpf(BPF_PROG_LOAD, &attr);
    if (program < 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) ||
        setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)))
        ktext_die("a BPF program");
    attr = (union bpf_attr){.info = {.bpf_fd = (uint32_t)program, .info_len = sizeof(info), .info = (uintptr_t)&info}};
    if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr))
        ktext_die("BPF_OBJ_GET_INFO_BY_FD");
    ktext_expect(r, "compiled", info.jited_prog_len > 0, true);
    load = ktext_load_start();
    for (unsigned i = 0; i < r->rounds; i++) {
        unsigned long before = run_count(program);

        ktext_write("/proc/sys/kernel/bpf_stats_enabled", "%u", i % 2);
        for (unsigned k = 0; k < 20; k++)
            ktext_expect(r, "a filtered packet", through(ends, packet), 100);
        ktext_expect(r, "runs counted", run_count(program) - before, i % 2 ? 20 : 0);
    }
    ktext_load_stop(load, r);
    ktext_write("/proc/sys/kernel/bpf_stats_enabled", "0");
    close(program);
    close(ends[0]);
    close(ends[1]);
}

const struct ktext_case ktext_bpf[] = {{"filters", filters}, {"statistics", statistics}, {NULL, NULL}};
