/* XSETBV: x87 cannot be off, AVX needs SSE, unknown bits and other registers are #GP(0) */
//= n_exc=4 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 rax=3
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $18, %rax
        mov     %rax, %cr4
        xor     %edx, %edx
        xor     %ecx, %ecx
        mov     $6, %eax
        FAULTS  xsetbv
        mov     $5, %eax
        FAULTS  xsetbv
        mov     $3, %eax
        mov     $0x80000000, %edx
        FAULTS  xsetbv
        xor     %edx, %edx
        mov     $5, %ecx
        FAULTS  xsetbv
        xor     %ecx, %ecx
        mov     $3, %eax
        xsetbv
        xor     %eax, %eax
        xgetbv
        END
