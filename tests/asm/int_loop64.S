/* LOOP, LOOPE, JRCXZ, JECXZ */
//= rax=5 rcx=0 rbx=1 rdx=1 rsi=3
#include "long64.inc"

test:
        mov     $5, %ecx
1:      inc     %eax
        loop    1b
        jrcxz   2f
        ud2
2:      mov     $1, %ebx
        mov     $0x100000000, %rcx
        jecxz   3f
        ud2
3:      mov     $1, %edx
        mov     $10, %ecx
4:      inc     %esi
        cmp     $3, %esi
        loopne  4b
        xor     %ecx, %ecx
        END
