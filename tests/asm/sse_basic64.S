/* SSE and SSE2 arithmetic, conversion, compare */
//= rax=0x40400000 rbx=0xfffffffd rcx=0x80000000 rdx=0x4008000000000000 r8&0x45=0x45 r9&0x45=1
#include "long64.inc"

test:
        mov     $0x3f800000, %eax
        movd    %eax, %xmm0
        mov     $0x40000000, %eax
        movd    %eax, %xmm1
        addss   %xmm1, %xmm0
        movd    %xmm0, %eax             # 3.0
        cvtss2sd %xmm0, %xmm2
        movq    %xmm2, %rdx
        mov     $0xc0600000, %ebx       # -3.5
        movd    %ebx, %xmm3
        cvttss2si %xmm3, %ebx
        mov     $0x7fc00000, %ecx
        movd    %ecx, %xmm4
        cvttss2si %xmm4, %ecx           # the indefinite
        ucomiss %xmm4, %xmm0
        pushf
        pop     %r8                     # unordered
        ucomiss %xmm0, %xmm1
        pushf
        pop     %r9                     # less
        END
