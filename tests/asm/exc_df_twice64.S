/* Two contributory faults make #DF */
//= n_exc=1 exc0=8:0
#include "long64.inc"

test:
        movw    $0x0e00, IDT + 13 * 16 + 4
        mov     $0x8000000000000000, %rax
        FAULTS  mov (%rax), %eax        # #GP, then #NP of its gate
        END
