/* PUSH and POP: sizes, RSP itself, memory relative to RSP */
//= rax=8 rbx=0x1234 rcx=0xffffffffffffffff rdx=2 rsi=0 rdi=0x77
#include "long64.inc"

test:
        mov     %rsp, %r15
        push    %rsp
        pop     %rax
        sub     %r15, %rax
        neg     %rax
        add     $8, %rax                # PUSH RSP pushes the old value
        push    $-1
        pop     %rcx
        mov     %rsp, %r14
        pushw   $0x1234
        mov     %r14, %rdx
        sub     %rsp, %rdx
        popw    %bx
        push    $0x77
        popq    0x20000                 # the address is that after the pop
        mov     0x20000, %edi
        mov     %r15, %rsi
        sub     %rsp, %rsi
        END
