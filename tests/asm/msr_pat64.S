/* PAT: types 2 and 3 and reserved ones are #GP(0) */
//- qemu: TCG takes any value
//= n_exc=2 exc0=13:0 exc1=13:0 rax=0x00070406 rdx=0x00070106
#include "long64.inc"

test:
        mov     $0x277, %ecx
        mov     $0x00070402, %eax
        mov     $0x00070406, %edx
        FAULTS  wrmsr
        mov     $0x08070406, %eax
        FAULTS  wrmsr
        mov     $0x00070406, %eax
        mov     $0x00070106, %edx
        wrmsr
        xor     %eax, %eax
        xor     %edx, %edx
        rdmsr
        END
