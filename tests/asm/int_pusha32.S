/* PUSHA and POPA: ESP is skipped */
//= rax=1 rbx=4 rcx=2 rdx=3 rsi=6 rdi=7 rbp=5 mem32[0x20000]=0x20
#include "prot32.inc"

test:
        mov     $1, %eax
        mov     $2, %ecx
        mov     $3, %edx
        mov     $4, %ebx
        mov     $5, %ebp
        mov     $6, %esi
        mov     $7, %edi
        mov     %esp, 0x20000
        pusha
        sub     %esp, 0x20000
        xor     %eax, %eax
        xor     %ebx, %ebx
        xor     %ecx, %ecx
        xor     %edx, %edx
        xor     %esi, %esi
        xor     %edi, %edi
        xor     %ebp, %ebp
        popa
        END
