/* PCMPISTRI and PCMPESTRM */
//= rcx=2 rax=4 rdx=5 rbx=0xf r8&1=1
#include "long64.inc"

test:
        movl    $0x64636261, 0x20000
        movl    $0, 0x20004
        movl    $0x00000063, 0x20010
        movdqu  0x20000, %xmm0
        movdqu  0x20010, %xmm1
        pcmpistri $0, %xmm0, %xmm1      # any of "c" in "abcd"
        pushf
        pop     %r8
        mov     %ecx, %esi
        mov     $4, %eax
        mov     $5, %edx
        movdqa  %xmm0, %xmm2
        pcmpestrm $8, %xmm2, %xmm2      # equal each
        movd    %xmm0, %ebx
        and     $0xf, %ebx
        mov     %esi, %ecx
        END
