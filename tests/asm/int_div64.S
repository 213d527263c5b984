/* DIV and IDIV: quotients towards zero, remainders with the dividend's sign */
//= rax=0xfffffffffffffffd rdx=0xffffffffffffffff rbx=0xffff rcx=0x0203
#include "long64.inc"

test:
        mov     $0x17, %eax
        mov     $5, %cl
        div     %cl                     # AL 4, AH 3
        mov     $-7, %rax
        cqo
        mov     $2, %ecx
        idiv    %rcx
        mov     %rax, %r8
        mov     %rdx, %r9
        mov     $0xfffeffff, %eax
        mov     $0xfffe, %edx
        mov     $0xffff, %ebx
        div     %bx                     # 0xfffeffff / 0xffff
        mov     $0x11, %eax
        mov     $5, %ecx
        div     %cl
        movzwl  %ax, %ecx               # AL 3, AH 2
        mov     %r8, %rax
        mov     %r9, %rdx
        END
