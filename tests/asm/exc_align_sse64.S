/* Legacy SSE operands of 16 bytes must be aligned: #GP(0); AVX ones need not */
//= n_exc=4 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 rbx=1
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        xsetbv
        FAULTS  movaps 0x20008, %xmm0
        FAULTS  paddb 0x20001, %xmm0
        FAULTS  vmovdqa 0x20010, %ymm0
        FAULTS  fxsave 0x20008
        movups  0x20001, %xmm0
        vpaddb  0x20001, %xmm0, %xmm1
        vmovdqu 0x20001, %ymm0
        mov     $1, %ebx
        END
