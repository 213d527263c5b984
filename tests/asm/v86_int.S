/* INT n in virtual-8086 mode with IOPL below 3: #GP(0); with IOPL 3 through the IDT */
//= rax=0 rbx=1 rcx=0x20000 n_exc=0
#include "prot32.inc"

test:
        movw    $1f, IDT + 13 * 8
        movw    $3f, IDT + 0x30 * 8
        push    $0
        push    $0
        push    $0
        push    $0
        push    $0
        push    $USTACK
        push    $0x20002
        push    $0
        push    $2f
        iretl
1:      pop     %eax                    # the error code
        mov     $1, %ebx
        orl     $0x3000, 8(%esp)        # again with IOPL 3
        iretl
3:      mov     8(%esp), %ecx
        and     $0x20000, %ecx
        END
        .code16
2:      int     $0x30
