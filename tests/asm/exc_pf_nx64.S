/* NX: fetching from a page with bit 63 set is a #PF with I */
//= n_exc=2 exc0=14:0x11 exc0.cr2=0x20000 exc1=14:0x15
#include "long64.inc"

test:
        movb    $0xc3, 0x20000
        mov     $0x8000000000020007, %rax
        mov     %rax, PT + 0x20 * 8
        invlpg  0x20000
        mov     $0x20000, %ebx
        FAULTS  call *%rbx
        mov     $0x9000, %esp
        TO_USER
        FAULTS  jmp *%rbx
        END_USER
