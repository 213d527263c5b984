/* Rotates, through CF too */
//= rax=0x3 rbx=0xc000000000000000 rcx=0x8001 rdx=0x3 r8&0x801=0x801 r9&1=1
#include "long64.inc"

test:
        mov     $0x8000000000000001, %rax
        rol     $1, %rax
        pushf
        pop     %r8
        mov     $0x8000000000000001, %rbx
        ror     $1, %rbx
        mov     $0x0003, %ecx
        clc
        rcr     $1, %cx                 # 1, CF 1
        rcr     $1, %cx                 # 0x8000, CF 1
        pushf
        pop     %r9
        rcl     $1, %cx                 # 1, CF 1
        ror     $1, %cx
        rol     $1, %cx
        ror     $1, %cx
        or      $1, %cx
        mov     $0x80, %dl
        stc
        rcl     $2, %dl                 # 0x80 -> 1 (CF 1) -> 3
        END
