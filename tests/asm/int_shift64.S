/* Shifts: counts are masked, a count of 0 leaves the flags */
//= rax=0x8000000000000000 rbx=1 rcx=0x21 rdx=0xffffffffffffffff rsi=2 r8&0x41=0x41 r9&1=1 r10&0x801=0x801
#include "long64.inc"

test:
        mov     $1, %eax
        shl     $63, %rax
        mov     $1, %ebx
        mov     $0x20, %cl
        stc
        setc    %dil
        xor     %r8d, %r8d              # ZF set, CF clear
        stc
        shl     %cl, %ebx               # masked to 0: nothing changes
        pushf
        pop     %r8
        inc     %cl
        mov     $1, %esi
        shl     %cl, %esi
        mov     $-2, %rdx
        sar     $1, %rdx
        mov     $3, %r9d
        shr     $1, %r9d
        pushf
        pop     %r9
        mov     $0xc0000000, %r10d
        shr     $1, %r10d               # OF is the old sign
        mov     $0x80000001, %r10d
        shr     $1, %r10d
        pushf
        pop     %r10
        END
