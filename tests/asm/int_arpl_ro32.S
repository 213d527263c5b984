/* ARPL writes only what it changes: a read-only segment stops it no sooner */
//- qemu: TCG does not look at the rights of segments
//= n_exc=1 exc0=13:0 exc0.at=0 rcx=0 rdx=0x21 rsi=0x40
#include "prot32.inc"

test:
        movl    $0x0000ffff, gdt + 0x60
        movl    $0x00cf9100, gdt + 0x64 # read only
        mov     $0x60, %eax
        mov     %eax, %fs
        movw    $0x23, 0x20000
        mov     $1, %ebx
        arpl    %bx, %fs:0x20000
        pushf
        pop     %ecx
        and     $0x40, %ecx
        movw    $0x20, 0x20000
        FAULTS  arpl %bx, %fs:0x20000
        arpl    %bx, 0x20000
        pushf
        pop     %esi
        and     $0x40, %esi
        movzwl  0x20000, %edx
        END
