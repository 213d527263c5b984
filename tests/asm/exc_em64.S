/* CR0.EM: x87 is #NM, MMX and SSE are #UD */
//= n_exc=3 exc0=7:0 exc1=6:0 exc2=6:0
#include "long64.inc"

test:
        mov     %cr0, %rax
        bts     $2, %rax
        mov     %rax, %cr0
        FAULTS  fld1
        FAULTS  movd %eax, %mm0
        FAULTS  movaps %xmm0, %xmm1
        END
