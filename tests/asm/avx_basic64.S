/* AVX: a VEX-encoded 128-bit result clears the upper half, a legacy one keeps it */
//= rax=0 rbx=0x5555555555555555 rcx=0x5555555555555555
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        xsetbv
        mov     $0x5555555555555555, %rsi
        vmovq   %rsi, %xmm0
        vpbroadcastq %xmm0, %ymm1
        vmovdqa %ymm1, %ymm2
        vmovdqa %xmm1, %xmm1            # clears
        movdqa  %xmm1, %xmm2            # keeps
        vextracti128 $1, %ymm1, %xmm3
        vmovq   %xmm3, %rax
        vextracti128 $1, %ymm2, %xmm3
        vmovq   %xmm3, %rbx
        vmovq   %xmm2, %rcx
        END
