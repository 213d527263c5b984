/* SHLD and SHRD */
//= rax=0x23456789abcdef0f rbx=0xf0000000 rcx=0x3456 r8&1=1
#include "long64.inc"

test:
        mov     $0x123456789abcdef0, %rax
        mov     $0xf000000000000000, %rdx
        shld    $4, %rdx, %rax
        pushf
        pop     %r8
        mov     $0x1, %ebx
        mov     $0xf, %edx
        shrd    $4, %edx, %ebx
        mov     $0x1234, %ecx
        mov     $0x5678, %edx
        shld    $8, %dx, %cx
        END
