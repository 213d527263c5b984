/* VPGATHERDD clears its mask as it goes */
//= rax=0x33 rbx=0x11 rcx=0
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        xsetbv
        movl    $0x11, 0x20000
        movl    $0x22, 0x20004
        movl    $0x33, 0x20008
        movl    $2, 0x20020
        movl    $0, 0x20024
        movdqu  0x20020, %xmm1
        pcmpeqd %xmm2, %xmm2
        mov     $0x20000, %edi
        vpgatherdd %xmm2, (%rdi,%xmm1,4), %xmm0
        vmovd   %xmm0, %eax
        vpextrd $1, %xmm0, %ebx
        vpmovmskb %xmm2, %ecx
        END
