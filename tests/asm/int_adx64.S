/* ADCX uses CF alone, ADOX OF alone */
//= rax=0 rbx=1 rcx=5 r8&0x801=0x801 r9&0x801=0x800
#include "long64.inc"

test:
        xor     %edx, %edx              # CF and OF clear
        mov     $-1, %rax
        mov     $1, %ebx
        mov     %rax, %rsi
        mov     $1, %r10d
        adcx    %r10, %rax              # CF
        adox    %r10, %rsi              # OF
        pushf
        pop     %r8
        mov     $4, %ecx
        adcx    %rdx, %rcx              # 4 + 0 + 1, CF clear
        pushf
        pop     %r9
        END
