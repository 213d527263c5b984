/*
 * What a debugger may send. First byte: 'r': the rest is what comes over the line; anything else: packets' contents, one a line, which are framed
 * here, so that mutations get behind the checksum. Between packets, a vCPU that may run does, a little.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "gdb/gdb_session.h"

static struct vm vm;
static struct gdb_session session;

/* In real mode at 0x1000: inc ax; mov [0x2000], ax; mov bx, [0x2000]; int3; jmp to the start. */
static const uint8_t code[] = {0x40, 0xa3, 0x00, 0x20, 0x8b, 0x1e, 0x00, 0x20, 0xcc, 0xeb, 0xf5};

static int boot(struct vm *v, struct err *err)
{
    return 0;
}

/* What is sent must be a frame, or a byte that acknowledges one. */
static void check(void *opaque, const void *data, size_t len)
{
    const char *bytes = data;

    if (len == 1 ? *bytes != '+' && *bytes != '-' : len < 4 || *bytes != '$' || bytes[len - 3] != '#')
        abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err = {0};
    const struct vm_conf conf = {.engine = engine_find("interp", &err),
                                 .ram_size = 4 * MIB,
                                 .ram_low_max = 2 * GIB,
                                 .n_vcpus = 2,
                                 .crystal_hz = 25000000};

    if (!conf.engine || vm_open(&vm, &conf, &err))
        abort();
    vm.boot = boot;
    gdb_session_init(&session, &vm, true, check, NULL);
    return 0;
}

static void start(void)
{
    struct x86_state st;

    if (ram_discard_all(&vm.ram) || ram_write(&vm.ram, 0x1000, code, sizeof(code)))
        abort();
    for (unsigned i = 0; i < vm.conf.n_vcpus; i++) {
        x86_state_reset(&st, true);
        st.seg[X86_CS].base = 0;
        st.seg[X86_CS].sel = 0;
        st.rip = 0x1000;
        st.gpr[X86_RSP] = 0x8000;
        vcpu_set_state(vm.vcpus[i], &st);
    }
}

/* The vCPU's thread, in a few words. */
static void run(struct vcpu *vcpu)
{
    if (session.paused || vcpu->frozen)
        return;
    vcpu_port_lower(&vcpu->port, PIN_KICK);
    vcpu->debug.hit = NULL;
    if (vm.conf.engine->run(vcpu->engine_vcpu, 50) == ENGINE_DEBUG && (vcpu->debug.hit || vcpu->debug.step)) {
        vcpu->debug_stopped = true;
        gdb_session_stopped(&session);
    }
}

static void run_all(void)
{
    for (unsigned i = 0; i < vm.conf.n_vcpus; i++)
        run(vm.vcpus[i]);
}

static void send_packet(const uint8_t *data, size_t len)
{
    static struct gdb_packet p;

    gdb_packet_begin(&p);
    gdb_packet_binary(&p, data, len);
    gdb_packet_end(&p);
    gdb_session_input(&session, (const uint8_t *)p.data, p.len);
    run_all();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t interrupt = 3;

    if (size < 1)
        return 0;
    start();
    gdb_session_attach(&session);
    if (data[0] == 'r') {
        gdb_session_input(&session, data + 1, size - 1);
        run_all();
        size = 0;
    }
    for (size_t at = 1; at < size && !session.over;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t len = end ? (size_t)(end - data) - at : size - at;
        send_packet(data + at, len);
        if (!session.paused)
            gdb_session_input(&session, &interrupt, 1);
        at += len + 1;
    }
    gdb_session_detach(&session);
    if (session.n_breakpoints || session.paused)
        abort(); /* nothing of a debugger stays when it has gone */
    return 0;
}
