/* What nothing answers to: ports and addresses beyond RAM read as ones */
//- qemu: QEMU reads zeroes beyond RAM
//= rax=0xff rbx=0xffffffff rcx=0xffffffff
#include "long64.inc"

test:
        mov     $0x9ff0, %edx
        in      %dx, %al
        mov     %eax, %esi
        in      %dx, %eax
        mov     %eax, %ebx
        movl    $0xd0000093, PD + 16
        movl    $0, PD + 20
        invlpg  0x400000
        mov     0x400000, %ecx
        movzbl  %sil, %eax
        END
