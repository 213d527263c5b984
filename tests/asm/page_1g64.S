/* A 1 GiB page */
//= rax=0x77 rbx=0x77
#include "long64.inc"

test:
        movl    $0x77, 0x20000
        movq    $0x83, PDPT + 8
        mov     %cr3, %rcx
        mov     %rcx, %cr3
        mov     0x40020000, %eax
        mov     $0xffff800040020000, %rsi
        mov     (%rsi), %ebx
        END
