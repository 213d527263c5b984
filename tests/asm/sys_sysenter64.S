/* SYSENTER from 64-bit code and SYSEXIT back to it */
//= rbx=0x18 rdx=0x9000 rcx=0x3b rsi=0x33
#include "long64.inc"

test:
        mov     $0x174, %ecx
        mov     $0x18, %eax
        xor     %edx, %edx
        wrmsr
        inc     %ecx
        mov     $STACK, %eax
        wrmsr
        inc     %ecx
        mov     $1f, %eax
        wrmsr
        TO_USER
        sysenter
1:      mov     %cs, %ebx
        mov     %esp, %edi
        mov     $USTACK, %ecx
        mov     $2f, %edx
        rex.w sysexit                   # CS = 0x18 + 32, SS = 0x18 + 40: 0x3b and 0x43
        ud2
2:      mov     %edi, %edx
        mov     %cs, %ecx
        mov     %ss, %esi
        sub     $0x10, %esi
        END_USER
