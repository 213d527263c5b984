/* ARPL raises the RPL and sets ZF */
//= rax=0x13 rcx=0x40 rbx=0x13 rdx=0
#include "prot32.inc"

test:
        mov     $0x10, %eax
        mov     $0x0b, %esi
        arpl    %si, %ax
        pushf
        pop     %ecx
        and     $0x40, %ecx
        mov     %eax, %ebx
        arpl    %si, %bx
        pushf
        pop     %edx
        and     $0x40, %edx
        END
