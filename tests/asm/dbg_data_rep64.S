/* A data breakpoint under a repeated string instruction: after the iteration that meets it */
//- qemu: TCG moves on before it traps
//= n_exc=1 exc0=1:0 exc0.at=0 exc0.flags&0x10000=0x10000 rcx=5 rdi=0x20003 rbx=0 dr6&0xf=8
#include "long64.inc"

test:
        mov     $BUF + 2, %eax
        mov     %rax, %dr3
        mov     $0x10000480, %eax       # G3, write, one byte
        mov     %rax, %dr7
        mov     $BUF, %edi
        mov     $8, %ecx
        FAULTS  rep stosb
        END
