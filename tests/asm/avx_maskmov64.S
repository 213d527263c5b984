/* VMASKMOV does not touch what the mask leaves out, not even pages that are not there */
//- qemu: TCG touches what the mask leaves out
//= n_exc=1 exc0=14:0 rax=7 rbx=0
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        xsetbv
        movb    $0, PT + 0x21 * 8
        invlpg  0x21000
        movl    $7, 0x20ffc
        pxor    %xmm1, %xmm1
        mov     $0x80000000, %esi
        movd    %esi, %xmm1
        vmaskmovps 0x20ffc, %xmm1, %xmm0
        vmovd   %xmm0, %eax
        vpextrd $1, %xmm0, %ebx
        vpshufd $0, %xmm1, %xmm1
        FAULTS  vmaskmovps 0x20ffc, %xmm1, %xmm0
        END
