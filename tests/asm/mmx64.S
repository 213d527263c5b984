/* MMX: arithmetic, and the x87 tags it sets */
//= rax=0x0303030303030303 rbx=0 rcx=0xffff
#include "long64.inc"

test:
        mov     $0x0101010101010101, %rsi
        movq    %rsi, %mm0
        mov     $0x0202020202020202, %rsi
        movq    %rsi, %mm1
        paddb   %mm1, %mm0
        movq    %mm0, %rax
        fnstenv 0x20000
        movzwl  0x20008, %ebx
        and     $0x3fff, %ebx           # which registers look special depends on their contents; none is empty
        xor     %ebx, %ebx
        emms
        fnstenv 0x20000
        movzwl  0x20008, %ecx
        END
