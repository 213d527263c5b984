/* RETF to an outer level nulls data segments that the program may not use */
//= ds=0x33 fs=0 gs=0x33 rax=0x2b
#include "prot32.inc"

test:
        mov     $SEL_UDATA, %eax
        mov     %eax, %ds
        mov     %eax, %gs
        mov     $SEL_DATA, %ecx
        mov     %ecx, %fs
        push    $SEL_UDATA
        push    $USTACK
        push    $SEL_UCODE32
        push    $1f
        lret
1:      mov     %cs, %eax
        mov     %fs, %ebx
        END_USER
