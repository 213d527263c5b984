/* IST, RSP alignment and the frame of 64-bit mode; IRETQ restores SS and RSP */
//= rax=0x9bd8 rbx=0x9800 rcx=0x33 rdx=0x9800
#include "long64.inc"

test:
        movw    $1f, IDT + 0x2f * 16
        movw    $0xee01, IDT + 0x2f * 16 + 4    # IST 1
        TO_USER
        mov     %esp, %edx
        sub     $3, %rsp                # the frame is aligned to 16 all the same
        int     $0x2f
        add     $3, %rsp
        mov     %esp, %edx
        END_USER
1:      mov     %rsp, %rax
        mov     24(%rsp), %rbx
        add     $3, %rbx
        mov     32(%rsp), %ecx
        iretq
