/* BSF, BSR, LZCNT, TZCNT, POPCNT */
//= rax=4 rbx=35 rcx=0x1c rdx=64 rsi=16 rdi=32 r8&0x41=0x1 r9&0x40=0x40
#include "long64.inc"

test:
        mov     $0x800000010, %r10
        bsf     %r10, %rax
        bsr     %r10, %rbx
        lzcnt   %r10, %rcx
        xor     %r11d, %r11d
        tzcnt   %r11, %rdx
        pushf
        pop     %r8
        mov     $-1, %r12
        popcnt  %r12w, %si
        lzcnt   %r11d, %edi
        popcnt  %r11, %r13
        pushf
        pop     %r9
        END
