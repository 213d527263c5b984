/* Limits loaded in protected mode stay in real mode */
//= rax=0x55 n_exc=0
#include "real16.inc"

test:
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        mov     $SEL_DATA, %bx
        mov     %bx, %fs
        and     $~1, %al
        mov     %eax, %cr0
        mov     $0x200000, %ebx
        xor     %ax, %ax
        movl    $0x55, %fs:(%ebx)
        mov     %fs:(%ebx), %eax
        END
