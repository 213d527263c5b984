/*
 * The kernel's own accesses to what is not there, may not be written, or is no address, with every kind of operand. The
 * handlers have stacks of their own, since RSP is one of the bad ones.
 */
//- qemu: for a read-modify-write QEMU reports the read
//= mem32[0x500]=0 mem32[0x504]=3926 mem32[0x508]=0 mem32[0x50c]=0 mem64[0x510]=0 mem64[0x518]=0
#define SWEEP_STACK 0x30000
#define SWEEP_END   END
#include "sweep64.inc"

test:
        call    sweep_prepare
        movq    $0, PT + (BUF + 0x1000) / 512           # behind the good page
        andq    $~2, PT + (BUF + 0x3000) / 512
        mov     %cr3, %rax
        mov     %rax, %cr3
        mov     $SWEEP_STACK, %esp
        jmp     sweep

        .balign 8
places:
        PLACE   BUF + 0x1000, 14, 0, P_LAST | P_KEEPS
        PLACE   BUF + 0x3000, 14, 1, P_LAST | P_WRITE   # CR0.WP
        PLACE   BUF + 0x3040, 14, 1, P_FIRST | P_WRITE
        PLACE   0x40000000, 14, 0, P_FIRST              # nobody's here; a host's, perhaps
        PLACE   0x7fffffff, 14, 0, P_FIRST | P_ODD
        PLACE   0x80000000, 14, 0, P_FIRST
        PLACE   0x100000000, 14, 0, P_FIRST
        PLACE   0x555555554000, 14, 0, P_FIRST
        PLACE   0x7ffff7dd5000, 14, 0, P_FIRST
        PLACE   0xffffffff80000000, 14, 0, P_FIRST
        PLACE   0xffffffffffffffff, 14, 0, P_FIRST | P_ODD | P_SMALL
        PLACE   0x800000000000, 13, 0, P_LAST
        PLACE   0x800000000000, 13, 0, P_FIRST
        PLACE   0xffff7fffffffffff, 13, 0, P_FIRST | P_ODD
        PLACE   0xdeadbeefcafef00d, 13, 0, P_FIRST | P_ODD
places_end:
