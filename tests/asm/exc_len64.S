/* More than 15 bytes of one instruction: #GP(0) */
//= n_exc=1 exc0=13:0 exc0.at=0 rbx=7
#include "long64.inc"

test:
        .fill   14, 1, 0x66
        nop
        mov     $7, %ebx
        FAULTS  .fill 15, 1, 0x66 ; nop
        END
