/* An access across two pages reports the page that faults; a store changes neither */
//= n_exc=2 exc0=14:0 exc0.cr2=0x21000 exc1=14:2 exc1.cr2=0x21000 rdx=0x1111111111111111
#include "long64.inc"

test:
        mov     $0x1111111111111111, %rax
        mov     %rax, 0x20ff8
        movq    $0, PT + 0x21 * 8
        invlpg  0x21000
        FAULTS  mov 0x20ffc, %rax
        movq    $-1, %rax
        FAULTS  mov %rax, 0x20ffc
        mov     0x20ff8, %rdx
        END
