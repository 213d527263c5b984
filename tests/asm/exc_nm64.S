/* CR0.TS: x87, MMX, SSE and AVX are #NM; WAIT only with MP */
//= n_exc=5 exc0=7:0 exc1=7:0 exc2=7:0 exc3=7:0 exc4=7:0 rbx=1
#include "long64.inc"

test:
        mov     %cr0, %rax
        bts     $3, %rax
        mov     %rax, %cr0
        FAULTS  fld1
        FAULTS  fwait
        FAULTS  movd %eax, %mm0
        FAULTS  movaps %xmm0, %xmm1
        FAULTS  fxsave 0x20000
        mov     %cr0, %rax
        btr     $1, %rax
        mov     %rax, %cr0
        fwait
        mov     $1, %ebx
        clts
        fld1
        END
