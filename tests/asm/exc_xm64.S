/* An unmasked SIMD exception: #XM, or #UD when CR4.OSXMMEXCPT is clear */
//- qemu: TCG raises no #XM
//= n_exc=2 exc0=19:0 exc0.at=0 exc1=6:0 mem32[0x20000]&0x3f=4
#include "long64.inc"

test:
        movl    $0x1d80, 0x20000        # ZM clear
        ldmxcsr 0x20000
        mov     $0x3f800000, %eax
        movd    %eax, %xmm0
        pxor    %xmm1, %xmm1
        FAULTS  divss %xmm1, %xmm0
        stmxcsr 0x20000
        mov     %cr4, %rax
        btr     $10, %rax
        mov     %rax, %cr4
        FAULTS  divss %xmm1, %xmm0
        END
