/* LMSW sets PE but never clears it; SMSW */
//= rax&0xf=0xb rbx&0xf=0x3 cr0&0xf=0x3
#include "prot32.inc"

test:
        mov     $0xa, %eax              # PE clear: ignored
        lmsw    %ax
        smsw    %eax
        mov     $0x3, %ebx
        lmsw    %bx
        smsw    %ebx
        END
