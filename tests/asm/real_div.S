/* #DE in real mode: IP is the instruction's */
//= n_exc=1 exc0=0:0 exc0.at=0 rax=0x64
#include "real16.inc"

test:
        mov     $100, %ax
        xor     %cl, %cl
        FAULTS  div %cl
        END
