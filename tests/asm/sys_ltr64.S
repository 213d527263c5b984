/* LTR: busy is #GP, absent #NP, the 64-bit descriptor's upper half is checked for type */
//- qemu: TCG loads a null selector
//= n_exc=3 exc0=13:0x40 exc1=11:0x60 exc2=13:0 rax=0x60
#include "long64.inc"

test:
        mov     $0x40, %eax
        FAULTS  ltr %ax                 # busy
        movq    $0x67, gdt + 0x60
        movl    $0x00000900, gdt + 0x64
        movq    $0, gdt + 0x68
        mov     $0x60, %eax
        FAULTS  ltr %ax
        movl    $0x00008900, gdt + 0x64
        xor     %ecx, %ecx
        FAULTS  ltr %cx
        ltr     %ax
        str     %eax
        END
