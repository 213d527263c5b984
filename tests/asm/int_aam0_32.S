/* AAM by 0 is #DE */
//= n_exc=1 exc0=0:0 exc0.at=0 rax=5
#include "prot32.inc"

test:
        mov     $5, %eax
        FAULTS  .byte 0xd4, 0
        END
