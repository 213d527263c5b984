/* AESENC and SHA256MSG1 */
//= n_exc=0 rax=0x6363636363636363 rbx=0x6363636363636363
#include "long64.inc"

test:
        pxor    %xmm0, %xmm0
        pxor    %xmm1, %xmm1
        aesenclast %xmm1, %xmm0
        movq    %xmm0, %rax
        psrldq  $8, %xmm0
        movq    %xmm0, %rbx
        END
