/* AAA, AAS, AAM, AAD, DAA, DAS */
//= rbx=0x0105 rcx=0x0509 rdx=0x3b rsi=0x15 rdi=0x35
#include "prot32.inc"

test:
        mov     $0x000f, %eax
        aaa                             # 0x0105
        mov     %eax, %ebx
        mov     $59, %eax
        aam                             # 5, 9
        mov     %eax, %ecx
        aad                             # 59
        mov     %eax, %edx
        mov     $0x0f, %eax
        clc
        daa                             # 0x15
        mov     %eax, %esi
        mov     $0x9b, %eax
        clc
        das                             # 0x9b: less 6, then less 0x60
        mov     %eax, %edi
        END
