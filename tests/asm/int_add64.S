/* ADD and ADC: carries, overflow, sizes; a 32-bit result clears the upper half */
//= rax=0 rbx=0x80 rcx=0x123456789abc0000 rdx=0 rsi=1 r8&0x8d5=0x55 r9&0x8d5=0x890
#include "long64.inc"

test:
        mov     $-1, %rax
        add     $1, %rax
        pushf
        pop     %r8                     # CF PF AF ZF
        mov     $0x7f, %bl
        add     $1, %bl
        pushf
        pop     %r9                     # OF SF AF
        mov     $0x123456789abcffff, %rcx
        add     $1, %cx
        mov     $-1, %rdx
        stc
        adc     $0, %edx
        adc     $0, %esi
        END
