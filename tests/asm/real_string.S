/* String instructions with 16-bit registers wrap at 64 KiB */
//= rdi=2 rcx=0 rax=0x41 rbx=0x41
#include "real16.inc"

test:
        movw    $0x2000, %ax
        mov     %ax, %es
        mov     $0xfffe, %di
        mov     $4, %cx
        mov     $0x41, %al
        rep stosb
        movzbw  %es:0xffff, %ax
        movzbw  %es:1, %bx
        END
