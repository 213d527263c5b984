/* IRET with NT set is #GP(0) in long mode */
//= n_exc=1 exc0=13:0
#include "long64.inc"

test:
        pushf
        orl     $0x4000, (%rsp)
        popf
        push    $SEL_DATA
        push    $STACK
        push    $2
        push    $SEL_CODE64
        push    $1f
        FAULTS  iretq
1:
        END
