/* An address that is not canonical: #GP(0), #SS(0) through RSP and RBP (SDM Vol. 1 3.3.7.1) */
//- qemu: TCG raises #GP where #SS is due
//= n_exc=6 exc0=13:0 exc1=12:0 exc2=12:0 exc3=12:0 exc4=13:0 exc5=13:0
#include "long64.inc"

test:
        mov     $0x800000000000, %rbx
        FAULTS  mov (%rbx), %eax
        mov     %rbx, %rbp
        FAULTS  mov (%rbp), %eax
        mov     %rsp, %rdx
        mov     %rbx, %rcx
        sub     %rsp, %rcx
        FAULTS  mov (%rsp,%rcx), %eax
        FAULTS  mov %eax, 8(%rbp)
        mov     $0x8000000000000000, %rsi
        FAULTS  lodsb
        FAULTS  jmp *%rbx
        END
