/* INTO: a trap when OF is set */
//= n_exc=1 exc0=4:0 exc0.at=1 rbx=1
#include "prot32.inc"

test:
        xor     %eax, %eax
        into
        mov     $0x7fffffff, %eax
        inc     %eax
        FAULTS  into
        mov     $1, %ebx
        END
