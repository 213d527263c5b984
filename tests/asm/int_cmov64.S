/* CMOV of 32 bits clears the upper half also when it moves nothing */
//= rax=0x55667788 rbx=0xffffffff rcx=0x1122334455667788
#include "long64.inc"

test:
        mov     $0x1122334455667788, %rax
        mov     %rax, %rcx
        mov     $-1, %rbx
        xor     %edx, %edx              # ZF
        cmovne  %ebx, %eax
        cmove   %ebx, %ebx
        cmovc   %rbx, %rcx
        END
