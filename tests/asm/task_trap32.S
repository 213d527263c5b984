/* T in the TSS: #DB with DR6.BT before the task's first instruction */
//- qemu: TCG does not look at T
//= rax=0 n_exc=1 exc0=1:0 exc0.at=0 dr6&0xe00f=0x8000
#include "prot32.inc"

test:
        movl    $0x78000067, gdt + 0x60
        movl    $0x00008900, gdt + 0x64
        movl    $1f, 0x7800 + 32
        movl    $2, 0x7800 + 36
        movl    $STACK - 0x100, 0x7800 + 56
        movl    $SEL_DATA, 0x7800 + 72
        movl    $SEL_CODE32, 0x7800 + 76
        movl    $SEL_DATA, 0x7800 + 80
        movl    $SEL_DATA, 0x7800 + 84
        movw    $1, 0x7800 + 100
        movl    $1f, fault_at
        xor     %eax, %eax
        ljmp    $0x60, $0
1:      inc     %eax
        END
