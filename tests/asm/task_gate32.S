/* An exception through a task gate: the error code lies on the new task's stack */
//= rax=0x60 rbx=0x40 rcx=1
#include "prot32.inc"

test:
        movl    $0x78000067, gdt + 0x60
        movl    $0x00008900, gdt + 0x64
        movl    $1f, 0x7800 + 32
        movl    $2, 0x7800 + 36
        movl    $STACK - 0x100, 0x7800 + 56
        movl    $SEL_DATA, 0x7800 + 72
        movl    $SEL_CODE32, 0x7800 + 76
        movl    $SEL_DATA, 0x7800 + 80
        movl    $SEL_DATA, 0x7800 + 84
        movl    $0x00600000, IDT + 13 * 8
        movl    $0x00008500, IDT + 13 * 8 + 4
        mov     $0x60, %eax
        mov     %eax, %ds               # a TSS: #GP(0x60)
        mov     $1, %ecx
        END
1:      mov     (%esp), %eax
        movzwl  0x7800, %ebx
        mov     $1, %ecx
        END
