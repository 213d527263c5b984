/* Code that rewrites the instruction ahead of it in the same block */
//= rax=0x99 rbx=0x100
#include "long64.inc"

test:
        mov     $0x100, %ecx
1:      movb    $0x99, 2f + 1
        nop
2:      mov     $0x11, %al
        movzbl  %al, %eax
        inc     %ebx
        movb    $0x11, 2b + 1
        movb    $0x99, 2b + 1
        loop    1b
        END
