/* Accessed and dirty bits, in every level */
//= rax&0xfff=0x27 rbx&0xfff=0x67 rcx&0x20=0x20 rdx&0x20=0x20 rsi&0xfff=0x07
#include "long64.inc"

test:
        movq    $0x20007, PT + 0x20 * 8
        movq    $0x21007, PT + 0x21 * 8
        invlpg  0x20000
        invlpg  0x21000
        mov     0x20000, %edi
        mov     PT + 0x20 * 8, %eax
        movl    $1, 0x20000
        mov     PT + 0x20 * 8, %ebx
        mov     PD, %rcx
        mov     PML4, %rdx
        mov     PT + 0x21 * 8, %esi
        END
