/* INT pushes FLAGS, CS, IP and clears IF and TF; IRET brings them back */
//= rax=0 rbx=6 rcx=0x202 rdx=0x202
#include "real16.inc"

test:
        movw    $1f, 0x40 * 4
        movw    $0, 0x40 * 4 + 2
        push    $0x202
        popf
        mov     %sp, %si
        int     $0x40
        pushf
        pop     %dx
        cli
        jmp     2f
1:      pushf
        pop     %ax
        and     $0x300, %ax
        mov     %si, %bx
        sub     %sp, %bx
        mov     %sp, %bp
        mov     4(%bp), %cx
        iret
2:
        END
