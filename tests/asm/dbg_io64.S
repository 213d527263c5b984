/* I/O breakpoints: with CR4.DE, after the instruction, for any port of the access */
//- qemu: TCG has no I/O breakpoints for IN
//= n_exc=2 exc0=1:0 exc0.at=2 exc1=1:0 exc1.at=1 dr6&0xf=1 rcx=1
#include "long64.inc"

test:
        mov     %cr4, %rax
        or      $8, %eax
        mov     %rax, %cr4
        mov     $0x82, %eax
        mov     %rax, %dr0
        mov     $0x00020402, %eax       # G0, I/O, one byte
        mov     %rax, %dr7
        in      $0x80, %ax              # 0x80 and 0x81
        movq    $2f, recover
        movq    $1f, fault_at
1:      out     %al, $0x82
        mov     $7, %ecx
2:      mov     $0x7f, %edx
        movq    $4f, recover
        movq    $3f, fault_at
3:      in      %dx, %eax               # 0x7f to 0x82
        mov     $7, %ecx
4:      mov     $1, %ecx
        END
