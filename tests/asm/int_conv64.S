/* CBW to CQO, XCHG, XADD, CMPXCHG */
//= rax=0xffffffffffffff80 rdx=0xffffffffffffffff rbx=7 rcx=3 rsi=0xa rdi=7 r8=5 r9&0x40=0x40 r10=0x99
#include "long64.inc"

test:
        mov     $3, %ebx
        mov     $7, %ecx
        xchg    %ebx, %ecx
        mov     $7, %esi
        mov     $3, %edi
        xadd    %edi, %esi              # esi 10, edi 7
        mov     $5, %eax
        mov     $5, %r8d
        mov     $0x99, %r10d
        cmpxchg %r10d, %r8d             # equal: r8 = 0x99
        pushf
        pop     %r9
        mov     %r8d, %r10d
        mov     $5, %r8d
        mov     $0x80, %al
        cbw
        cwde
        cdqe
        cqo
        END
