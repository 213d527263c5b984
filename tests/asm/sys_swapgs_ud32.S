/* SWAPGS, SYSCALL, CMPXCHG16B and REX do not exist in protected mode */
//= n_exc=3 exc0=6:0 exc1=6:0 exc2=6:0 rax=1
#include "prot32.inc"

test:
        FAULTS  .byte 0x0f, 0x01, 0xf8
        FAULTS  .byte 0x0f, 0x05
        FAULTS  .byte 0x0f, 0x07
        mov     $1, %eax
        END
