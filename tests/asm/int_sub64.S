/* SUB, SBB, CMP, NEG */
//= rax=0xffffffffffffffff rbx=0x7fffffff rcx=0xffffffffffffffff rdx=0 r8&0x8d5=0x95 r9&0x8d5=0x814 r10&0x8d5=0x44
#include "long64.inc"

test:
        sub     $1, %rax
        pushf
        pop     %r8                     # CF PF AF SF
        mov     $0x80000000, %ebx
        sub     $1, %ebx
        pushf
        pop     %r9                     # OF PF AF
        stc
        sbb     %rcx, %rcx
        neg     %rdx
        pushf
        pop     %r10
        cmp     %rax, %rbx
        END
