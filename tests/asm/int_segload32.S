/* LDS and the like, MOV from a segment zero-extends */
//= rax=0x12345678 rbx=0x10 rcx=0x10 es=0x10 fs=0x33
#include "prot32.inc"

test:
        movl    $0x12345678, 0x20000
        movw    $0x10, 0x20004
        les     0x20000, %eax
        movw    $0x33, 0x20004
        lfs     0x20000, %edx
        mov     $-1, %ebx
        mov     %es, %ebx
        push    %ds
        pop     %ecx
        END
