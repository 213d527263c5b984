/* INVLPG and CR3 drop stale translations */
//= rax=2 rbx=3
#include "long64.inc"

test:
        movl    $1, 0x20000
        movl    $2, 0x21000
        movl    $3, 0x22000
        mov     0x20000, %ecx
        movq    $0x21007, PT + 0x20 * 8
        invlpg  0x20800
        mov     0x20000, %eax
        movq    $0x22007, PT + 0x20 * 8
        mov     %cr3, %rcx
        mov     %rcx, %cr3
        mov     0x20000, %ebx
        END
