/* BOUND: #BR outside, nothing inside; #UD with a register */
//= n_exc=3 exc0=5:0 exc0.at=0 exc1=5:0 exc2=6:0 rbx=1
#include "prot32.inc"

test:
        movl    $-5, 0x20000
        movl    $10, 0x20004
        mov     $-5, %eax
        bound   %eax, 0x20000
        mov     $10, %eax
        bound   %eax, 0x20000
        mov     $11, %eax
        FAULTS  bound %eax, 0x20000
        mov     $-6, %eax
        FAULTS  bound %eax, 0x20000
        FAULTS  .byte 0x62, 0xc0
        mov     $1, %ebx
        END
