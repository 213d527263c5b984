/* A contributory fault while #PF is delivered: #DF(0), on its IST stack */
//= n_exc=1 exc0=8:0 rbx=1 r15=0x9c00
#include "long64.inc"

test:
        movw    $0x0e00, IDT + 14 * 16 + 4      # the gate of #PF is absent
        movb    $1, IDT + 8 * 16 + 4            # #DF on IST 1
        mov     $1, %ebx
        movq    $2f, recover
        mov     0x40000000, %eax
2:      mov     $0x9c00, %r15d
        END
