/* INC and DEC leave CF alone */
//= rax=0x8000000000000000 rbx=0xff r8&0x8d5=0x895 r9&0x8d5=0x94
#include "long64.inc"

test:
        mov     $0x7fffffffffffffff, %rax
        stc
        inc     %rax
        pushf
        pop     %r8
        clc
        dec     %bl
        pushf
        pop     %r9
        END
