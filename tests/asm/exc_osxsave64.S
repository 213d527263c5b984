/* CR4.OSXSAVE clear: XGETBV, XSAVE and AVX are #UD */
//= n_exc=3 exc0=6:0 exc1=6:0 exc2=6:0 rax=7 rbx=0x66
#include "long64.inc"

test:
        xor     %ecx, %ecx
        FAULTS  xgetbv
        FAULTS  xsave 0x20000
        FAULTS  vzeroupper
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %edx, %edx
        xsetbv
        xor     %eax, %eax
        xgetbv
        mov     $0x66, %ebx
        vmovd   %ebx, %xmm0
        END
