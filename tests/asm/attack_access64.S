/*
 * A program that reaches, with every kind of operand, for the kernel's memory, for addresses at which a VMM might lie, and for
 * those that are none: always a fault that names exactly what it touched.
 */
//- qemu: for a read-modify-write QEMU reports the read
//= mem32[0x500]=0 mem32[0x504]=7838 mem32[0x508]=0 mem32[0x50c]=0 mem64[0x510]=0 mem64[0x518]=0
#define SWEEP_STACK 0x30000
#define SWEEP_END   END_USER
#include "sweep64.inc"

test:
        call    sweep_prepare
        movq    $0, PT + (BUF + 0x1000) / 512           # behind the good page
        andq    $~4, PT + (BUF + 0x3000) / 512
        andq    $~2, PT + (BUF + 0x5000) / 512
        mov     %cr3, %rax
        mov     %rax, %cr3
        TO_USER
        mov     $SWEEP_STACK, %esp
        jmp     sweep

        .balign 8
places:
        PLACE   BUF + 0x1000, 14, 4, P_LAST | P_KEEPS
        PLACE   BUF + 0x3000, 14, 5, P_LAST
        PLACE   BUF + 0x5000, 14, 5, P_LAST | P_WRITE
        PLACE   BUF + 0x5040, 14, 5, P_FIRST | P_WRITE
        PLACE   0x200000, 14, 5, P_FIRST                # the kernel's
        PLACE   0x2fffff, 14, 5, P_FIRST | P_ODD
        PLACE   0x3ffffffd, 14, 5, P_FIRST | P_ODD | P_SMALL
        PLACE   0xffff800000200000, 14, 5, P_FIRST
        PLACE   0xffff80003fffffc0, 14, 5, P_FIRST | P_SMALL
        PLACE   0x40000000, 14, 4, P_FIRST              # nobody's here; a host's, perhaps
        PLACE   0x7fffffc0, 14, 4, P_FIRST | P_SMALL
        PLACE   0x7fffffff, 14, 4, P_FIRST | P_ODD
        PLACE   0x80000000, 14, 4, P_FIRST
        PLACE   0xfffffffd, 14, 4, P_FIRST | P_ODD | P_SMALL
        PLACE   0x100000000, 14, 4, P_FIRST
        PLACE   0x555555554000, 14, 4, P_FIRST
        PLACE   0x7ffff7dd5000, 14, 4, P_FIRST
        PLACE   0x7fffffffe000, 14, 4, P_FIRST
        PLACE   0x7fffffffffc0, 14, 4, P_FIRST | P_SMALL
        PLACE   0xffffffff80000000, 14, 4, P_FIRST
        PLACE   0xffffffffff600000, 14, 4, P_FIRST
        PLACE   0xfffffffffffff000, 14, 4, P_FIRST
        PLACE   0xffffffffffffffc0, 14, 4, P_FIRST | P_SMALL
        PLACE   0xffffffffffffffff, 14, 4, P_FIRST | P_ODD | P_SMALL    # goes on at 0
        PLACE   0x800000000000, 13, 0, P_LAST
        PLACE   0x800000000000, 13, 0, P_FIRST
        PLACE   0xffff7fffffffffff, 13, 0, P_FIRST | P_ODD
        PLACE   0x8000000000000000, 13, 0, P_FIRST
        PLACE   0xdeadbeefcafef00d, 13, 0, P_FIRST | P_ODD
places_end:
