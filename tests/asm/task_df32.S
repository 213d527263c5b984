/* #DF through a task gate saves what a broken stack would not */
//= rax=0 rbx=0x40
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
        movl    $0x00600000, IDT + 8 * 8
        movl    $0x00008500, IDT + 8 * 8 + 4
        movl    $0, IDT + 13 * 8
        movl    $0, IDT + 13 * 8 + 4
        mov     $0x200, %eax
        mov     %eax, %ds               # #GP, whose gate is no gate: #GP again: #DF
        END
1:      mov     (%esp), %eax
        movzwl  0x7800, %ebx
        END
