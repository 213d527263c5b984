/* An unmasked x87 exception is raised by the next waiting instruction: #MF */
//= n_exc=1 exc0=16:0 exc0.at=0 rax&0x80ff=0x8084
#include "long64.inc"

test:
        fninit
        movw    $0x37b, 0x20000         # ZM clear
        fldcw   0x20000
        fld1
        fldz
        fdivrp                          # 1 / 0: pending now
        fnstsw  %ax                     # does not wait
        FAULTS  fwait
        fnclex
        fwait
        END
