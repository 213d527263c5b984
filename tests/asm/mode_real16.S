/* Real mode: segments times 16, 32-bit registers with prefixes, IVT */
//= rax=0x12345678 rbx=0x77 rcx=0x2000 n_exc=1 exc0=0x21:0 exc0.at=2 ds=0x2000
#include "real16.inc"

test:
        mov     $0x12345678, %eax
        mov     $0x2000, %cx
        mov     %cx, %ds
        movw    $0x77, %ds:4
        mov     $0x1fff, %dx
        mov     %dx, %es
        mov     %es:0x14, %bx
        FAULTS  int $0x21
        END
