/* Loading sets the accessed bit in the descriptor */
//= rax=0x00cf9300 rbx=0x00cf9200
#include "prot32.inc"

test:
        movl    $0x0000ffff, gdt + 0x60
        movl    $0x00cf9200, gdt + 0x64
        mov     gdt + 0x64, %ebx
        mov     $0x60, %eax
        mov     %eax, %fs
        mov     gdt + 0x64, %eax
        END
