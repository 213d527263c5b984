/* 16-bit interrupt and trap gates: 16-bit frames, at the same level and from CPL 3 */
//= rax=6 rbx=0x0008 rcx=0 rdx=0x200 rsi=10 rdi=0x9800 rbp=0x33 n_exc=0
#include "prot32.inc"

test:
        movl    $SEL_CODE32 << 16, IDT + 32 * 8
        movw    $1f, IDT + 32 * 8
        movl    $0x00008600, IDT + 32 * 8 + 4
        movl    $SEL_CODE32 << 16, IDT + 33 * 8
        movw    $2f, IDT + 33 * 8
        movl    $0x00008700, IDT + 33 * 8 + 4
        movl    $SEL_CODE32 << 16, IDT + 34 * 8
        movw    $3f, IDT + 34 * 8
        movl    $0x0000e600, IDT + 34 * 8 + 4
        sti
        mov     %esp, %eax
        int     $32
        int     $33
        cli
        mov     %eax, BUF
        TO_USER
        int     $34
        hlt
1:      sub     %esp, %eax              # FLAGS, CS, IP
        movzwl  2(%esp), %ebx
        pushf
        pop     %ecx
        and     $0x200, %ecx            # interrupt gate: IF clear
        iretw
2:      pushf
        pop     %edx
        and     $0x200, %edx            # trap gate: stays
        iretw
3:      mov     $STACK2, %esi
        sub     %esp, %esi
        movzwl  %ss:6(%esp), %edi
        movzwl  %ss:8(%esp), %ebp
        mov     BUF, %eax
        END
