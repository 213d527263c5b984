/* SYSCALL without EFER.SCE, SYSENTER without its CS: #UD, #GP(0) */
//= n_exc=2 exc0=6:0 exc1=13:0
#include "long64.inc"

test:
        mov     $0xc0000080, %ecx
        rdmsr
        and     $~1, %eax
        wrmsr
        FAULTS  syscall
        mov     $0x174, %ecx
        xor     %eax, %eax
        xor     %edx, %edx
        wrmsr
        FAULTS  sysenter
        END
