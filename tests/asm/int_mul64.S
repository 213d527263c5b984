/* MUL and IMUL: high halves, CF and OF */
//= rax=1 rdx=0xfffffffffffffffe rbx=0xfffffffffffffffa rcx=0xffff0000 rsi=0x100 r8&0x801=0x801 r9&0x801=0 r10&0x801=0x801
#include "long64.inc"

test:
        mov     $-1, %rax
        mul     %rax
        pushf
        pop     %r8
        mov     $-2, %rbx
        imul    $3, %rbx, %rbx
        pushf
        pop     %r9
        mov     $0x10001, %ecx
        imul    $0xffff0000, %ecx, %ecx
        pushf
        pop     %r10
        mov     %rax, %rdi
        mov     $0x10, %al
        mov     %al, %sil
        mul     %sil
        movzwl  %ax, %esi
        mov     %rdi, %rax
        END
