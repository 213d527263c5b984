/* Far CALL, JMP and RETF in 64-bit mode through memory */
//= rax=0x18 rbx=1 rcx=2 rdx=0x18
#include "long64.inc"

test:
        movq    $1f, 0x20000
        movw    $SEL_CODE64, 0x20008
        mov     %rsp, %r15
        rex.w lcall *0x20000
        mov     $2, %ecx
        sub     %rsp, %r15
        movq    $2f, 0x20000
        rex.w ljmp *0x20000
        ud2
1:      mov     8(%rsp), %eax
        mov     $1, %ebx
        lretq
2:      mov     %cs, %edx
        END
