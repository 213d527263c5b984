/* A data breakpoint met by MOV SS and held off by it comes with the INT1 that follows: one exception for both */
//- qemu: TCG delivers it before INT1
//= n_exc=1 exc0=1:0 exc0.at=1 rbx=1 dr6&0xf=1
#include "long64.inc"

test:
        mov     $BUF, %eax
        mov     %rax, %dr0
        mov     $0x000f0402, %eax       # G0, read or write, four bytes
        movw    $SEL_DATA, BUF
        mov     %rax, %dr7
        movq    $1f, fault_at
        movq    $2f, recover
        mov     BUF, %ss
1:      .byte   0xf1
        mov     $9, %ebx
2:      mov     $1, %ebx
        END
