/* STI holds interrupts off for one instruction only; CLI right after it never opens the window */
//= rflags&0x200=0 rbx=1
#include "long64.inc"

test:
        sti
        cli
        mov     $1, %ebx
        END
