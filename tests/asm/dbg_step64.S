/* TF: a trap after each instruction, not after the one that sets it; BS in DR6 */
//= n_exc=1 exc0=1:0 exc0.at=1 rbx=1 dr6&0x4000=0x4000
#include "long64.inc"

test:
        pushf
        orl     $0x100, (%rsp)
        movq    $2f, recover
        movq    $1f, fault_at
        popf                            # no trap here
1:      nop                             # the trap is after this one
        nop
        ud2
2:      mov     $1, %ebx
        END
