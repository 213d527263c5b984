/* #UD is a fault: the saved RIP is the instruction's, no error code (SDM Vol. 3A 6.15) */
//= n_exc=2 exc0=6:0 exc0.at=0 exc1=6:0 exc1.at=0 rax=0x1234
#include "long64.inc"

test:
        mov     $0x1234, %eax
        FAULTS  ud2
        FAULTS  .byte 0x06              # PUSH ES is gone in 64-bit mode
        END
