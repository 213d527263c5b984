/* Without CR4.PSE the PS bit means nothing */
//= rax=0x66
#include "prot32.inc"

test:
        movl    $PT32 + 0x87, PD32 + 4
        PAGING32
        movl    $0x66, 0x20000
        mov     0x420000, %eax
        END
