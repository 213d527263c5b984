/* CR4.OSFXSR clear: SSE is #UD, MMX is not */
//= n_exc=1 exc0=6:0 rbx=3
#include "long64.inc"

test:
        mov     %cr4, %rax
        btr     $9, %rax
        mov     %rax, %cr4
        FAULTS  movaps %xmm0, %xmm1
        mov     $3, %ecx
        movd    %ecx, %mm0
        movd    %mm0, %ebx
        END
