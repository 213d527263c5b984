/* XSAVE and XRSTOR of all of XCR0; a header with reserved bits is #GP(0) */
//= n_exc=1 exc0=13:0 rax=0x1234 rbx=0x1234 rdx=0
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        xsetbv
        mov     $0x1234, %esi
        vmovd   %esi, %xmm5
        vpbroadcastd %xmm5, %ymm5
        xsave64 0x20000
        vzeroall
        xrstor64 0x20000
        movl    $1, 0x20210
        FAULTS  xrstor64 0x20000
        vmovd   %xmm5, %eax
        vextracti128 $1, %ymm5, %xmm6
        vmovd   %xmm6, %ebx
        END
