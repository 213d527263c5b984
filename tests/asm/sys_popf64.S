/* POPF: at CPL 0 IOPL and IF, never VM; RF reads as 0; the 16-bit form keeps the upper half */
//= rax&0x3f7fd7=0x203002 rbx&0x200000=0x200000 rcx&0x200000=0x200000
#include "long64.inc"

test:
        mov     $0x233002, %eax         # ID, RF, VM, IOPL
        push    %rax
        popf
        pushf
        pop     %rax
        mov     %eax, %ebx
        pushw   $2
        popfw
        pushf
        pop     %rcx
        END
