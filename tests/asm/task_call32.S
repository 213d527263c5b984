/* A task switch by CALL and back by IRET: NT, the link, busy bits */
//= rax=0x4000 rbx=0x40 rcx=1 rdx=0x8b rsi=0x89 rdi=0 tr=0x40
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
        lcall   $0x60, $0
        mov     0x500, %eax
        mov     0x504, %ebx
        mov     $1, %ecx
        movzbl  gdt + SEL_TSS + 5, %edx
        movzbl  gdt + 0x65, %esi
        pushf
        pop     %edi
        and     $0x4000, %edi
        END
1:      pushf
        pop     %eax
        and     $0x4000, %eax
        mov     %eax, 0x500
        movzwl  0x7800, %eax            # the link
        mov     %eax, 0x504
        iretl
