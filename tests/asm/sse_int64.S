/* Packed integers: PSHUFB, PMOVMSKB, PCMPEQ, PTEST, PEXTR */
//= rax=0x0102030405060708 rbx=0xffff rcx=0 rdx=8 r8&0x41=0x1
#include "long64.inc"

test:
        mov     $0x0807060504030201, %rsi
        movq    %rsi, %xmm0
        mov     $0x0001020304050607, %rsi
        movq    %rsi, %xmm1
        movdqa  %xmm0, %xmm2
        pshufb  %xmm1, %xmm2
        movq    %xmm2, %rax
        pcmpeqb %xmm3, %xmm3
        pmovmskb %xmm3, %ebx
        pxor    %xmm4, %xmm4
        pmovmskb %xmm4, %ecx
        ptest   %xmm3, %xmm0
        pextrb  $7, %xmm0, %edx
        ptest   %xmm0, %xmm3
        ptest   %xmm3, %xmm3
        pushf
        pop     %r8
        END
