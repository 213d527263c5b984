/* LDT: a descriptor from it; LLDT of what is no LDT is #GP */
//= n_exc=1 exc0=13:0x8 rax=0x55 fs=0x0c
#include "prot32.inc"

test:
        movl    $0x0000ffff, 0x20008
        movl    $0x00409302, 0x2000c    # base 0x20000
        movl    $0x20000000 >> 16 << 16 | 0xf, gdt + 0x60
        movl    $0x0000000f, gdt + 0x60
        movl    $0x00008202, gdt + 0x64
        mov     $0x60, %eax
        lldt    %ax
        mov     $0x0c, %eax
        mov     %eax, %fs
        movl    $0x55, 0x20100
        mov     %fs:0x100, %eax
        mov     $SEL_CODE32, %ebx
        FAULTS  lldt %bx
        END
