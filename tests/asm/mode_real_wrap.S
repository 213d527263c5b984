/* Real mode: an offset beyond the limit is #GP, #SS on the stack (SDM Vol. 3B 20.1) */
//- qemu: TCG checks no limits
//= n_exc=3 exc0=13:0 exc0.at=0 exc1=12:0 exc2=13:0
#include "real16.inc"

test:
        mov     $0xffff, %bx
        FAULTS  mov (%bx), %ax
        mov     $0xffff, %bp
        FAULTS  mov (%bp), %ax
        mov     $0x10000, %ebx
        FAULTS  mov (%ebx), %al
        END
