/* A 16-bit call gate: words as parameters, a 16-bit frame on the inner stack; RETF n takes both back */
//= rax=0x2222 rbx=0x1111 rcx=12 rdx=0x9800 rsi=0x2b n_exc=0
#include "prot32.inc"

test:
        movl    $SEL_CODE32 << 16 | 0, gdt + 0x60
        movw    $1f, gdt + 0x60
        movl    $0x0000e402, gdt + 0x64 # DPL 3, 16-bit, two parameters
        TO_USER
        pushw   $0x1111
        pushw   $0x2222
        lcall   $0x63, $0
        mov     %esp, %edx
        END_USER
1:      mov     $STACK2, %ecx
        sub     %esp, %ecx              # SS, SP, two words, CS, IP
        movzwl  4(%esp), %eax
        movzwl  6(%esp), %ebx
        movzwl  2(%esp), %esi
        lretw   $4
