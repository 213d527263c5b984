/* An interrupt gate to an inner level takes the stack from the TSS and clears IF; a trap gate leaves it */
//= rax=0x9400 rbx=0x33 rcx=0x9800 rdx=0 rsi=0x2b rdi=0x200
#include "prot32.inc"

test:
        movw    $1f, IDT + 0x40 * 8
        movw    $SEL_CODE32, IDT + 0x40 * 8 + 2
        movw    $0xee00, IDT + 0x40 * 8 + 4
        movw    $2f, IDT + 0x41 * 8
        movw    $SEL_CODE32, IDT + 0x41 * 8 + 2
        movw    $0xef00, IDT + 0x41 * 8 + 4
        mov     $0x3200, %edx
        TO_USER_FLAGS
        int     $0x40
        int     $0x41
        END_USER
1:      lea     20(%esp), %eax
        mov     4(%esp), %esi
        mov     12(%esp), %ecx
        mov     16(%esp), %ebx
        pushf
        pop     %edx
        and     $0x200, %edx
        iretl
2:      pushf
        pop     %edi
        and     $0x200, %edi
        iretl
