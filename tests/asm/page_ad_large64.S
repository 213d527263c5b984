/* Accessed and dirty bits of a 2 MiB page */
//= rax=0xa3 rbx=0xe3
#include "long64.inc"

test:
        movq    $0x400083, PD + 16
        invlpg  0x400000
        mov     0x400000, %edi
        mov     PD + 16, %eax
        and     $0xfff, %eax
        movl    $1, 0x400000
        mov     PD + 16, %ebx
        and     $0xfff, %ebx
        END
