/* x87 stack overflow and underflow give the indefinite, C1 and SF */
//- qemu: TCG has no stack faults
//= rax&0x241=0x241 rbx&0x241=0x41 mem64[0x20000]=0xfff8000000000000
#include "long64.inc"

test:
        fninit
        fstpl   0x20000
        fnstsw  %ax
        mov     %eax, %ebx
        fnclex
        .rept   9
        fld1
        .endr
        fnstsw  %ax
        END
