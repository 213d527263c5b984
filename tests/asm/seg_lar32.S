/* LAR, LSL, VERR, VERW */
//= rax&0xf0ff00=0x00c09b00 rbx=0xffffffff rcx=0x40 rdx=0 rsi=0 rdi=0x7f
#include "prot32.inc"

test:
        mov     $SEL_CODE32, %ebp
        lar     %ebp, %eax
        lsl     %ebp, %ebx
        verr    %bp
        pushf
        pop     %ecx
        and     $0x40, %ecx
        verw    %bp
        pushf
        pop     %edx
        and     $0x40, %edx
        mov     $0x200, %ebp
        lar     %ebp, %eax
        pushf
        pop     %esi
        and     $0x40, %esi
        mov     $SEL_TSS, %ebp
        lsl     %ebp, %edi
        mov     $SEL_CODE32, %ebp
        lar     %ebp, %eax
        END
