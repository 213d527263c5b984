/* SALC, the undocumented D6, and the 82 alias */
//= rax=0xff rbx=6
#include "prot32.inc"

test:
        stc
        .byte   0xd6
        mov     $5, %bl
        .byte   0x82, 0xc3, 1
        END
