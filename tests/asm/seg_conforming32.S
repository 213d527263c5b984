/* Conforming code runs at the caller's level */
//= rax=0x63 n_exc=1 exc0=13:0
#include "prot32.inc"

test:
        movl    $0x0000ffff, gdt + 0x60
        movl    $0x00cf9f00, gdt + 0x64
        TO_USER
        ljmp    $0x60, $1f
1:      mov     %cs, %eax
        FAULTS  cli
        END_USER
