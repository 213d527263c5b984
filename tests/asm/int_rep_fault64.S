/* A REP that faults has its registers at the element that faulted, and goes on from there */
//= n_exc=1 exc0=14:2 exc0.cr2=0x21000 exc0.at=0 rbx=0xf0 rdx=0x21000 rcx=0 rdi=0x210f0 mem8[0x210ef]=0x41
#include "long64.inc"

test:
        movb    $0, PT + 0x21 * 8
        invlpg  0x21000
        mov     $0x20f10, %edi
        mov     $0x1e0, %ecx
        mov     $0x41, %al
        FAULTS  rep stosb
        mov     %ecx, %ebx
        mov     %edi, %edx
        movb    $7, PT + 0x21 * 8
        invlpg  0x21000
        rep stosb
        END
