/* Moves with extension */
//= rax=0xffffffffffffff80 rbx=0xff80 rcx=0x80 rdx=0xffffffff80000000 rsi=0x80000000 rdi=0x8000 r8=0xffff8000
#include "long64.inc"

test:
        mov     $0x80, %r15d
        movsbq  %r15b, %rax
        movsbw  %r15b, %bx
        movzbl  %r15b, %ecx
        mov     $0x80000000, %r15d
        movslq  %r15d, %rdx
        mov     %r15d, %esi
        mov     $0x8000, %r15d
        movzwl  %r15w, %edi
        movswl  %r15w, %r8d
        END
