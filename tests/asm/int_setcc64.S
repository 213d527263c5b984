/* SETcc and Jcc over all conditions after CMP 1, 2 */
//= rax=0x66aa rbx=0x66aa
#include "long64.inc"

test:
        xor     %eax, %eax
        xor     %ebx, %ebx
        mov     $1, %ecx
        .irp    cc, o,no,b,ae,e,ne,be,a,s,ns,p,np,l,ge,le,g
        cmp     $2, %cl
        set\cc  %dl
        shl     $1, %ebx
        or      %dl, %bl
        cmp     $2, %cl
        j\cc    1f
        shl     $1, %eax
        jmp     2f
1:      shl     $1, %eax
        inc     %eax
2:
        .endr
        END
