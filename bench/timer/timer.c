/*
 * How late timers are: a guest without a system. It arms its local APIC's timer for one random interval after another while its CPU
 * does one of the things below, and notes by the time-stamp counter how late the interrupt handler begins.
 *
 *   loop   counts in a register: code that a translator runs from one end to the other without looking up
 *   copy   REP MOVSB of 256 KiB: an instruction that has to be interruptible
 *   halt   HLT: a vCPU that sleeps
 *
 * 32-bit, behind a multiboot 1 header (Multiboot specification 0.6.96), which vireo and QEMU load without firmware's help or with
 * it. Prints "timer: result NAME ticks N median A p99 B worst C" in nanoseconds for each, then "timer: done".
 *
 * The clock is the TSC as measured by the HPET, so it takes no word for what the rate of either is.
 */
#include <stdbool.h>
#include <stdint.h>

#define TICKS          2000
#define INTERVAL_LEAST 100  /* us */
#define INTERVAL_RANGE 1024 /* us: a power of 2 */
#define CALIBRATION_MS 100

#define COM1           0x3f8
#define PIC1_MASK      0x21
#define PIC2_MASK      0xa1
#define HPET           0xfed00000u
#define HPET_PERIOD    0x04 /* fs */
#define HPET_CONFIG    0x10
#define HPET_COUNTER   0xf0
#define APIC           0xfee00000u
#define APIC_SPURIOUS  0xf0
#define APIC_LVT_TIMER 0x320
#define APIC_INITIAL   0x380
#define APIC_CURRENT   0x390
#define APIC_DIVIDE    0x3e0
#define APIC_ENABLED   0x100
#define APIC_MASKED    0x10000
#define APIC_DIVIDE_1  0xb

#define VECTOR_TIMER    0x40
#define VECTOR_SPURIOUS 0xff
#define COPY_FROM       ((void *)0x400000)
#define COPY_TO         ((void *)0x800000)
#define COPY_BYTES      0x40000u

__asm__(".pushsection .multiboot, \"a\"\n"
        ".long 0x1badb002, 0, -0x1badb002\n"
        ".popsection\n"
        ".pushsection .text\n"
        ".globl _start\n"
        "_start: mov $stack + 16384, %esp\n"
        "call timer_main\n"
        "1: cli; hlt; jmp 1b\n"
        "on_timer: push %eax; push %edx\n"
        "rdtsc\n"
        "mov %eax, fired_at; mov %edx, fired_at + 4\n"
        "movb $1, fired\n"
        "movl $0, 0xfee000b0\n" /* end of interrupt */
        "pop %edx; pop %eax\n"
        "on_spurious: iret\n"
        ".popsection\n");

void timer_main(void);
void on_timer(void);
void on_spurious(void);

uint8_t stack[16384] __attribute__((aligned(16)));
volatile bool fired;
volatile uint64_t fired_at;
static uint32_t lateness[TICKS]; /* ns */

/* ---- the machine ---- */

static void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static volatile uint32_t *reg(uint32_t base, uint32_t off)
{
    return (volatile uint32_t *)(base + off);
}

static uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

/* a * b / c, which must fit: without a library's 64-bit division. */
static uint32_t scale(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t quotient, remainder;
    __asm__("mull %3; divl %4" : "=a"(quotient), "=&d"(remainder) : "0"(a), "r"(b), "r"(c));
    return quotient;
}

static void put_char(char c)
{
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, (uint8_t)c);
}

static void put(const char *text)
{
    for (; *text; text++)
        put_char(*text);
}

static void put_number(uint32_t n)
{
    char digits[11];
    int i = sizeof(digits);

    digits[--i] = 0;
    do
        digits[--i] = (char)('0' + n % 10);
    while (n /= 10);
    put(digits + i);
}

/* ---- interrupts ---- */

static struct {
    uint16_t low, selector, type, high;
} idt[256];

static void set_gate(unsigned vector, void (*handler)(void))
{
    uint32_t at = (uint32_t)handler;

    idt[vector].low = (uint16_t)at;
    idt[vector].selector = 0x08;
    idt[vector].type = 0x8e00;
    idt[vector].high = (uint16_t)(at >> 16);
}

/* The loader's segments are flat, but its descriptor table need not be there any more. */
static void set_tables(void)
{
    static const uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) gdtr = {sizeof(gdt) - 1, (uint32_t)gdt}, idtr = {sizeof(idt) - 1, (uint32_t)idt};

    set_gate(VECTOR_TIMER, on_timer);
    set_gate(VECTOR_SPURIOUS, on_spurious);
    __asm__ volatile("lgdt %0; lidt %1; ljmp $0x08, $1f; 1: mov %2, %%ds; mov %2, %%es; mov %2, %%ss"
                     :
                     : "m"(gdtr), "m"(idtr), "r"(0x10)
                     : "memory");
}

/* ---- the clocks ---- */

static uint32_t tsc_per_ms, apic_per_ms;

static void calibrate(void)
{
    uint32_t ticks = scale(CALIBRATION_MS * 1000000u, 1000000, *reg(HPET, HPET_PERIOD)); /* ns * fs/ns / fs */

    *reg(HPET, HPET_CONFIG) |= 1;
    *reg(APIC, APIC_DIVIDE) = APIC_DIVIDE_1;
    *reg(APIC, APIC_LVT_TIMER) = APIC_MASKED;
    *reg(APIC, APIC_INITIAL) = UINT32_MAX;
    uint32_t start = *reg(HPET, HPET_COUNTER), apic = *reg(APIC, APIC_CURRENT), tsc = (uint32_t)rdtsc();
    while (*reg(HPET, HPET_COUNTER) - start < ticks)
        ;
    tsc_per_ms = ((uint32_t)rdtsc() - tsc) / CALIBRATION_MS;
    apic_per_ms = (apic - *reg(APIC, APIC_CURRENT)) / CALIBRATION_MS;
    *reg(APIC, APIC_INITIAL) = 0;
}

/* ---- what the CPU does meanwhile: each returns once the timer has fired, or before ---- */

static void loop(void)
{
    uint32_t n = 10000;
    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(n));
}

static void copy(void)
{
    void *from = COPY_FROM, *to = COPY_TO;
    uint32_t n = COPY_BYTES;
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

/* Interrupts are off between the look and the HLT, or it might sleep for good. */
static void halt(void)
{
    __asm__ volatile("cli" : : : "memory");
    if (fired)
        __asm__ volatile("sti" : : : "memory");
    else
        __asm__ volatile("sti; hlt" : : : "memory");
}

static void sort(uint32_t *v, unsigned n)
{
    for (unsigned gap = n / 2; gap; gap /= 2)
        for (unsigned i = gap; i < n; i++)
            for (unsigned j = i; j >= gap && v[j - gap] > v[j]; j -= gap) {
                uint32_t t = v[j];
                v[j] = v[j - gap];
                v[j - gap] = t;
            }
}

/* Beyond 4 s it is 4 s. */
static uint32_t to_ns(uint64_t tsc)
{
    uint64_t most = (uint64_t)tsc_per_ms * 4000;
    return scale((uint32_t)(tsc < most ? tsc : most), 1000000, tsc_per_ms);
}

static void measure(const char *name, void (*work)(void))
{
    uint32_t random = 1;

    for (unsigned i = 0; i < TICKS; i++) {
        random = random * 1664525 + 1013904223;
        uint32_t us = INTERVAL_LEAST + (random >> 16) % INTERVAL_RANGE;
        fired = false;
        uint64_t due = rdtsc() + scale(us, tsc_per_ms, 1000);
        *reg(APIC, APIC_INITIAL) = scale(us, apic_per_ms, 1000);
        while (!fired)
            work();
        lateness[i] = fired_at > due ? to_ns(fired_at - due) : 0;
    }
    sort(lateness, TICKS);
    put("timer: result ");
    put(name);
    put(" ticks ");
    put_number(TICKS);
    put(" median ");
    put_number(lateness[TICKS / 2]);
    put(" p99 ");
    put_number(lateness[TICKS * 99 / 100]);
    put(" worst ");
    put_number(lateness[TICKS - 1]);
    put("\r\n");
}

void timer_main(void)
{
    outb(PIC1_MASK, 0xff);
    outb(PIC2_MASK, 0xff);
    set_tables();
    calibrate();
    *reg(APIC, APIC_SPURIOUS) = APIC_ENABLED | VECTOR_SPURIOUS;
    *reg(APIC, APIC_LVT_TIMER) = VECTOR_TIMER;
    __asm__ volatile("sti");
    measure("loop", loop);
    measure("copy", copy);
    measure("halt", halt);
    put("timer: done\r\n");
}
