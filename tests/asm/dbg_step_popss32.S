/* MOV SS holds the trap off for one instruction */
//= n_exc=1 exc0=1:0 exc0.at=2 rbx=1
#include "prot32.inc"

test:
        mov     %ss, %eax
        pushf
        orl     $0x100, (%esp)
        movl    $2f, recover
        movl    $1f, fault_at
        popf
        mov     %eax, %ss               # no trap after this
1:      mov     $1, %bl
        nop
2:
        END
