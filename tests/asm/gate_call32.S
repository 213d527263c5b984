/* A call gate copies parameters to the inner stack; RETF n drops them on both */
//= rax=0x22222222 rbx=0x11111111 rcx=0x8 rdx=0x9800 n_exc=0
#include "prot32.inc"

test:
        movl    $SEL_CODE32 << 16 | 0, gdt + 0x60
        movw    $1f, gdt + 0x60
        movl    $0x0000ec02, gdt + 0x64 # DPL 3, 32-bit, two parameters
        TO_USER
        push    $0x11111111
        push    $0x22222222
        lcall   $0x63, $0
        mov     %esp, %edx
        END_USER
1:      mov     8(%esp), %eax
        mov     12(%esp), %ebx
        mov     %cs, %ecx
        lret    $8
