/* A conditional jump out of straight code whose next instruction writes all flags: at its target, CF from before DEC is still there */
//= rbx=1 rcx=0x5a
#include "long64.inc"

test:
        movq    $5, 0x20000
        mov     $2, %esi
        xor     %ebx, %ebx
        mov     $0x5a, %ecx
again:
        stc
        decq    0x20000
        jns     over
        add     $1, %rsi
        jmp     out
over:
        setc    %bl
        dec     %esi
        jnz     again
out:
        END
