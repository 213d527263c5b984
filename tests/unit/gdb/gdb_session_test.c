/*
 * Packets in, packets out, over a VM that is not started: what a debugger can ask of one that stands. What comes of letting it run is for
 * tests/cli/gdb_test.py, with the real gdb.
 */
#include "gdb/gdb_session.h"

#include <stdio.h>
#include <stdlib.h>

#include "../unit.h"

struct fixture {
    struct vm vm;
    struct gdb_session session;
    char out[4 * GDB_PACKET_MAX]; /* all that was sent since the last ask() */
    size_t len;
};

static void keep(void *opaque, const void *data, size_t len)
{
    struct fixture *f = opaque;

    assert_true(f->len + len < sizeof(f->out));
    memcpy(f->out + f->len, data, len);
    f->len += len;
    f->out[f->len] = '\0';
}

static int setup(void **state)
{
    struct fixture *f = aligned_alloc(64, align_up(sizeof(*f), 64));
    struct err err;
    const struct vm_conf conf = {.engine = engine_find("interp", &err),
                                 .ram_size = 4 * MIB,
                                 .ram_low_max = 2 * GIB,
                                 .n_vcpus = 3,
                                 .crystal_hz = 25000000};

    if (!f || vm_open(&f->vm, &conf, &err) < 0)
        return -1;
    f->len = 0;
    gdb_session_init(&f->session, &f->vm, true, keep, f);
    gdb_session_attach(&f->session);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vm_close(&f->vm);
    free(f);
    return 0;
}

/* Sends a packet without frame, as it stands. */
static void send_packet(struct fixture *f, const char *packet)
{
    char frame[2048];
    unsigned sum = 0;

    for (const char *p = packet; *p; p++)
        sum += (uint8_t)*p;
    int n = snprintf(frame, sizeof(frame), "$%s#%02x", packet, sum & 0xff);
    f->len = 0;
    f->out[0] = '\0';
    gdb_session_input(&f->session, (const uint8_t *)frame, (size_t)n);
}

/* Asks, and expects exactly that answer (contents only), acknowledged. */
static void ask(struct fixture *f, const char *packet, const char *answer)
{
    char frame[2048];
    unsigned sum = 0;

    for (const char *p = answer; *p; p++)
        sum += (uint8_t)*p;
    snprintf(frame, sizeof(frame), "+$%s#%02x", answer, sum & 0xff);
    send_packet(f, packet);
    assert_string_equal(f->out, frame);
}

static void ask_begins(struct fixture *f, const char *packet, const char *begin)
{
    send_packet(f, packet);
    assert_int_equal(strncmp(f->out + 2, begin, strlen(begin)), 0);
}

static void threads(void **state)
{
    struct fixture *f = *state;

    ask_begins(f, "?", "T05thread:1;");
    ask(f, "qC", "QC1");
    ask(f, "qfThreadInfo", "m1,2,3");
    ask(f, "qsThreadInfo", "l");
    ask(f, "T3", "OK");
    ask(f, "T4", "E03");
    ask(f, "Hg2", "OK");
    ask(f, "Hg4", "E16");
    ask(f, "Hgx", "E16");
    ask_begins(f, "qThreadExtraInfo,2", "4350552031"); /* CPU 1 */
    ask(f, "qThreadExtraInfo,9", "E16");
    ask(f, "qAttached", "1");
}

static void registers_are_the_selected_threads(void **state)
{
    struct fixture *f = *state;
    struct x86_state st;

    ask(f, "P0=efcdab8967452301", "OK");
    ask(f, "p0", "efcdab8967452301");
    ask(f, "Hg2", "OK");
    ask(f, "p0", "0000000000000000");
    ask(f, "Hg0", "OK"); /* any: the one that stopped */
    ask(f, "p0", "efcdab8967452301");
    vcpu_get_state(f->vm.vcpus[0], &st);
    assert_int_equal(st.gpr[X86_RAX], 0x0123456789abcdef);
    ask(f, "p66", "E16");
    ask(f, "p", "E16");
    ask(f, "P0=12", "E16");
    ask(f, "P12=00000000", "E01"); /* CS */
}

static void all_registers_round_trip(void **state)
{
    struct fixture *f = *state;
    static char packet[4096];
    struct x86_state st;

    send_packet(f, "g");
    size_t len = f->len - 5; /* +$ and #xx */
    assert_int_equal(len, 2 * (16 * 8 + 8 + 4 + 6 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 16 * 16 + 9 * 8));
    assert_int_equal(snprintf(packet, sizeof(packet), "G%.*s", (int)len, f->out + 2), len + 1);
    memcpy(packet + 1 + 16, "8877665544332211", 16); /* rbx */
    f->len = 0;
    struct gdb_packet frame;
    gdb_packet_begin(&frame);
    gdb_packet_text(&frame, "G");
    assert_int_equal(gdb_packet_binary(&frame, packet + 1, len), len);
    gdb_packet_end(&frame);
    gdb_session_input(&f->session, (const uint8_t *)frame.data, frame.len);
    assert_string_equal(f->out, "+$OK#9a");
    vcpu_get_state(f->vm.vcpus[0], &st);
    assert_int_equal(st.gpr[X86_RBX], 0x1122334455667788);
    ask(f, "G00", "E16");
}

static void memory(void **state)
{
    struct fixture *f = *state;

    ask(f, "M2000,4:deadbeef", "OK");
    ask(f, "m2000,4", "deadbeef");
    ask(f, "X2001,3:ab}\x04", "OK"); /* $, escaped */
    ask(f, "m2000,5", "de61622400");
    ask(f, "m3ffffe,4", "0000"); /* as far as RAM goes */
    ask(f, "m400000,4", "E0e");
    ask(f, "M3ffffe,4:11111111", "E0e");
    ask(f, "m3ffffe,2", "0000"); /* nothing of it was written */
    ask(f, "m2000,0", "");
    ask(f, "m2000", "E16");
    ask(f, "M2000,4:dead", "E16");
    ask(f, "X2000,4:abc", "E16");
}

/* Through page tables that permit the user and writes nothing, and show no trace afterwards. */
static void memory_is_linear(void **state)
{
    struct fixture *f = *state;
    struct x86_state st;
    const uint64_t tables[] = {0x11000 | 1, 0x12000 | 1, 0x13000 | 1};

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(ram_write(&f->vm.ram, 0x10000 + 0x1000 * i, &tables[i], 8), 0);
    assert_int_equal(ram_write(&f->vm.ram, 0x13000 + 8 * 5, &(uint64_t){0x7000 | 1}, 8), 0);
    assert_int_equal(ram_write(&f->vm.ram, 0x7010, "\x12\x34", 2), 0);
    vcpu_get_state(f->vm.vcpus[1], &st);
    st.cr3 = 0x10000;
    st.cr4 = X86_CR4_PAE;
    st.efer = X86_EFER_LME | X86_EFER_LMA;
    st.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP;
    vcpu_set_state(f->vm.vcpus[1], &st);
    ask(f, "Hg2", "OK");
    ask(f, "m5010,2", "1234");
    ask(f, "M5010,2:5678", "OK");
    ask(f, "m5ffe,4", "0000");
    ask(f, "m6000,2", "E0e");
    ask(f, "m800000005010,2", "E0e"); /* not canonical */
    assert_int_equal(load_le64(f->vm.ram.base + 0x13000 + 8 * 5), 0x7001);
    ask(f, "Hg1", "OK");
    ask(f, "m7010,2", "5678");
}

static void breakpoints(void **state)
{
    struct fixture *f = *state;
    char packet[64];

    ask(f, "Z0,1000,1", "OK");
    ask(f, "Z0,1000,1", "OK");
    assert_int_equal(f->session.n_breakpoints, 1);
    ask(f, "Z1,1000,1", "OK");
    ask(f, "Z2,2000,8", "OK");
    ask(f, "Z3,2000,8", "OK");
    ask(f, "Z4,2000,8", "OK");
    assert_int_equal(f->session.n_breakpoints, 5);
    assert_int_equal(f->session.breakpoints[4].kinds, ENGINE_BREAK_READ | ENGINE_BREAK_WRITE);
    ask(f, "z0,1000,1", "OK");
    ask(f, "z0,1000,1", "OK");
    assert_int_equal(f->session.n_breakpoints, 4);
    ask(f, "Z5,1000,1", "");
    ask(f, "Z2,1000,0", "E16");
    ask(f, "Z2,ffffffffffffffff,2", "E16");
    ask(f, "Z2,ffffffffffffffff,1", "OK");
    ask(f, "Z0,1000", "E16");
    for (unsigned i = f->session.n_breakpoints; i < GDB_SESSION_BREAKPOINTS; i++) {
        snprintf(packet, sizeof(packet), "Z0,%x,1", 0x10000 + i);
        ask(f, packet, "OK");
    }
    ask(f, "Z0,5,1", "E1c");
    gdb_session_detach(&f->session);
    assert_int_equal(f->session.n_breakpoints, 0);
}

static void running(void **state)
{
    struct fixture *f = *state;

    ask(f, "vCont?", "vCont;c;C;s;S");
    ask(f, "vCont", "E16");
    ask(f, "vCont;r1000,2000", "E16");
    ask(f, "vCont;c:9", "E16");
    assert_true(f->session.paused);
    send_packet(f, "vCont;s:2;c:1");
    assert_string_equal(f->out, "+"); /* the answer comes when one stops */
    assert_false(f->session.paused);
    assert_true(f->vm.vcpus[1]->debug.step && !f->vm.vcpus[1]->frozen);
    assert_true(!f->vm.vcpus[0]->debug.step && !f->vm.vcpus[0]->frozen);
    assert_true(f->vm.vcpus[2]->frozen);
    send_packet(f, "g");
    assert_string_equal(f->out, "+");
    f->len = 0;
    gdb_session_input(&f->session, (const uint8_t *)"\x03", 1);
    assert_int_equal(strncmp(f->out, "$T02thread:2;", 13), 0);
    send_packet(f, "c");
    assert_false(f->vm.vcpus[2]->frozen);
    gdb_session_end(&f->session, 3, 0);
    assert_string_equal(f->out, "+$W03#ba");
}

/* A watched access that another vCPU made when the VM stopped is told when the VM is to go on; if it is still of interest. */
static void stops_that_wait(void **state)
{
    struct fixture *f = *state;

    ask_begins(f, "qSupported:swbreak+;hwbreak+", "PacketSize=4000;");
    ask(f, "Z0,1000,1", "OK");
    ask(f, "Z2,2000,8", "OK");
    for (unsigned removed = 0; removed < 2; removed++) {
        send_packet(f, "c");
        for (unsigned i = 0; i < 2; i++) {
            f->vm.vcpus[i]->debug.hit = &f->session.breakpoints[i];
            f->vm.vcpus[i]->debug_stopped = true;
        }
        f->len = 0;
        gdb_session_stopped(&f->session);
        assert_int_equal(strncmp(f->out, "$T05thread:1;swbreak:;", 22), 0);
        f->session.stop.vcpu = 0;
        if (removed)
            ask(f, "z2,2000,8", "OK");
        send_packet(f, "c");
        if (removed)
            assert_string_equal(f->out, "+");
        else
            assert_int_equal(strncmp(f->out, "+$T05thread:2;watch:2000;", 25), 0);
        f->session.stop.vcpu = 0;
        assert_int_equal(f->session.paused, !removed);
    }
}

static void acknowledgements(void **state)
{
    struct fixture *f = *state;

    ask(f, "Hg2", "OK");
    f->len = 0;
    gdb_session_input(&f->session, (const uint8_t *)"-", 1);
    assert_string_equal(f->out, "$OK#9a"); /* again */
    f->len = 0;
    gdb_session_input(&f->session, (const uint8_t *)"$g#00", 5);
    assert_string_equal(f->out, "-");
    ask(f, "QStartNoAckMode", "OK");
    send_packet(f, "Hg1");
    assert_string_equal(f->out, "$OK#9a");
}

static void description_in_pieces(void **state)
{
    struct fixture *f = *state;

    ask(f, "qXfer:features:read:target.xml:0,5", "m<?xml");
    ask(f, "qXfer:features:read:target.xml:2,3", "mxml");
    ask(f, "qXfer:features:read:target.xml:fffff,3", "E16");
    ask(f, "qXfer:features:read:other.xml:0,5", "");
    ask(f, "qUnknown", "");
    ask(f, "vMustReplyEmpty", "");
    ask(f, "!", "");
}

static void monitor(void **state)
{
    struct fixture *f = *state;

    ask_begins(f, "qRcmd,68656c70", "68656c70");   /* help */
    ask_begins(f, "qRcmd,7878", "6e6f2073756368"); /* xx: no such */
    ask(f, "qRcmd,7", "E16");
    ask_begins(f, "qRcmd,726567697374657273", "726970"); /* registers: rip */
}

static void leaving(void **state)
{
    struct fixture *f = *state;

    ask(f, "D", "OK");
    assert_true(f->session.over);
    gdb_session_detach(&f->session);
    assert_false(f->session.paused);
    assert_int_equal(f->vm.end, VM_RUNNING);
    gdb_session_attach(&f->session);
    assert_true(f->session.paused);
    send_packet(f, "k");
    assert_true(f->session.over);
    assert_int_equal(f->vm.end, VM_END_QUIT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(threads),          TEST(registers_are_the_selected_threads),
        TEST(memory),           TEST(all_registers_round_trip),
        TEST(memory_is_linear), TEST(breakpoints),
        TEST(running),          TEST(stops_that_wait),
        TEST(acknowledgements), TEST(description_in_pieces),
        TEST(monitor),          TEST(leaving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
