/* FNSTENV masks all exceptions; tags; FLDENV */
//- qemu: TCG does not mask
//= rax=0x3f rbx=0xffff rcx=0x3fff rdx=0x37f
#include "long64.inc"

test:
        fninit
        fnstcw  0x20100
        mov     0x20100, %dx
        movw    $0x340, 0x20100
        fldcw   0x20100
        fnstenv 0x20000
        movzwl  0x20008, %ebx           # all empty
        fnstcw  0x20102
        mov     0x20102, %ax
        and     $0x3f, %eax             # masked by FNSTENV
        fld1
        fnstenv 0x20020
        movzwl  0x20028, %ecx           # register 7 is valid
        END
