/* Addresses that wrap in protected mode, with 32-bit page tables for what lies below 4 GiB */
//= mem32[0x500]=0 mem32[0x504]=333 mem32[0x508]=0 mem32[0x510]=0 mem32[0x518]=0
#include "prot32.inc"

#include "wrap32.inc"

#define PT_LAST 0x43000

on_int: add     $0x100, %eax
        iretl

test:
        mov     $on_int, %eax
        mov     %ax, IDT + 8 * 0x40
        movw    $SEL_CODE32, IDT + 8 * 0x40 + 2
        movl    $0x8e00, IDT + 8 * 0x40 + 4
        movl    $PT_LAST + 7, PD32 + 4 * 1023
        movl    $LAST + 7, PT_LAST + 4 * 1023
        movl    $0xf000ffff, gdt + 0x60         # base 0xfffff000
        movl    $0xffcf93ff, gdt + 0x64
        movl    $0x0010ffff, gdt + 0x68         # base 0x10
        movl    $0x00cf9300, gdt + 0x6c
        PAGING32
        movl    $3, BUF + 0x800
1:      call    wraps
        decl    BUF + 0x800
        jnz     1b
        END
