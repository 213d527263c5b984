/* SSE needs OSFXSR; FXSAVE of 32-bit mode has eight registers */
//= rax=0x44 rbx=0
#include "prot32.inc"

test:
        mov     $0x44, %eax
        movd    %eax, %xmm7
        movl    $0, 0x20000 + 160 + 8 * 16
        fxsave  0x20000
        xor     %eax, %eax
        mov     0x20000 + 160 + 7 * 16, %eax
        mov     0x20000 + 160 + 8 * 16, %ebx
        END
