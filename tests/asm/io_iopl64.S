/* IOPL 3 lets a program do I/O and CLI; POPF at CPL 3 does not change IOPL */
//= n_exc=1 exc0=13:0 rax=0xff rbx&0x3000=0x3000 rcx&0x200=0
#include "long64.inc"

test:
        push    $SEL_UDATA
        push    $USTACK
        push    $0x3002
        push    $SEL_UCODE64
        push    $1f
        iretq
1:      in      $0x90, %al
        movzbl  %al, %eax
        push    $0x2
        popf
        pushf
        pop     %rbx
        sti
        cli
        pushf
        pop     %rcx
        FAULTS  hlt
        END_USER
