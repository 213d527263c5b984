/* With EFER.NXE clear, bit 63 is reserved */
//- qemu: TCG leaves P clear beside RSVD
//= n_exc=1 exc0=14:9
#include "long64.inc"

test:
        mov     $0xc0000080, %ecx
        rdmsr
        btr     $11, %eax
        wrmsr
        mov     $0x8000000000020007, %rax
        mov     %rax, PT + 0x20 * 8
        invlpg  0x20000
        FAULTS  mov 0x20000, %eax
        END
