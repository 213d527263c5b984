/* IRET with RF set runs the instruction under a breakpoint once */
//= n_exc=0 rbx=7
#include "long64.inc"

test:
        mov     $3f, %eax
        mov     %rax, %dr0
        mov     $2, %eax
        mov     %rax, %dr7
        mov     %rsp, %rcx
        push    $SEL_DATA
        push    %rcx
        push    $0x10002
        push    $SEL_CODE64
        push    $3f
        iretq
3:      mov     $7, %ebx
        END
