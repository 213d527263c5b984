/* x87: stack, arithmetic, compare, status */
//= mem64[0x20000]=0x400921fb54442d18 mem32[0x20010]=7 rax&0x4700=0x4000 rbx&0x3800=0x3800
#include "long64.inc"

test:
        fldpi
        fstpl   0x20000
        movl    $3, 0x20008
        fildl   0x20008
        movl    $4, 0x20008
        fiaddl  0x20008
        fistpl  0x20010
        fld1
        fld1
        fcompp
        fnstsw  %ax
        mov     %eax, %ecx
        fld1
        fnstsw  %ax
        mov     %eax, %ebx
        mov     %ecx, %eax
        END
