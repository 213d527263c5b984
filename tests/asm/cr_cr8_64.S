/* CR8 keeps the task priority */
//= rax=5 rbx=0
#include "long64.inc"

test:
        mov     $5, %eax
        mov     %rax, %cr8
        xor     %eax, %eax
        mov     %cr8, %rax
        xor     %ebx, %ebx
        mov     %rbx, %cr8
        END
