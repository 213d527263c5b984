/* ENTER and LEAVE, with nesting */
//= rax=0x20 rbx=0 rcx=8 rdx=0x30
#include "long64.inc"

test:
        mov     %rsp, %r15
        mov     %rsp, %rbp
        enter   $0x18, $0
        mov     %r15, %rax
        sub     %rsp, %rax
        leave
        mov     %r15, %rbx
        sub     %rsp, %rbx
        enter   $0x10, $3
        mov     %r15, %rdx
        sub     %rsp, %rdx              # RBP, two frames, its own, 0x10
        mov     %r15, %rcx
        sub     %rbp, %rcx
        leave
        END
