/* ffff:10 and up is the first bytes above 1 MiB */
//= rax=0x4242 rbx=0x4242
#include "real16.inc"

test:
        mov     $0xffff, %ax
        mov     %ax, %ds
        movw    $0x4242, %ds:0x500
        mov     %ds:0x500, %ax
        mov     %ax, %bx
        END
