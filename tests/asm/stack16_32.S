/* A 16-bit stack in 32-bit code: SP wraps, the upper half of ESP stays */
//= rax=0x1234fffc rbx=0x77 rcx=0x12340000
#include "prot32.inc"

test:
        movl    $0x0000ffff, gdt + 0x60
        movl    $0x00009300, gdt + 0x64 # B clear
        mov     %ss, %edx
        mov     %esp, %esi
        mov     $0x60, %edi
        mov     %edi, %ss
        mov     $0x12340000, %esp
        mov     0xfffc, %ebp
        push    $0x77
        mov     %esp, %eax
        pop     %ebx
        mov     %esp, %ecx
        mov     %edx, %ss
        mov     %esi, %esp
        END
