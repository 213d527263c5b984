/* Compatibility mode: 32-bit semantics, the upper halves stay out of reach */
//= rax=0xffffffff rbx=1 cs=0x8
#include "long64.inc"

test:
        mov     $-1, %rax
        TO_COMPAT
        mov     $-2, %eax
        .byte   0x40                    # INC EAX there, REX here
        xor     %ebx, %ebx
        inc     %ebx
        END
