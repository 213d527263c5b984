/* A 16-bit code segment: IP of 16 bits, operand and address sizes */
//= rax=0x11112345 rbx=0x55 rcx=0x22222222
#include "prot32.inc"

test:
        mov     $0x11111111, %eax
        movl    $0x22222222, 0x20000
        movl    $0x55, 0x500
        ljmp    $SEL_CODE16, $1f
        .code16
1:      mov     $0x2345, %ax
        mov     $0x20000, %esi
        addr32 movl (%esi), %ecx
        mov     $0x500, %bx
        movzwl  (%bx), %ebx
        ljmpl   $SEL_CODE32, $2f
        .code32
2:
        END
