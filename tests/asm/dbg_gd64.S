/* DR7.GD: a MOV to or from a debug register is #DB with BD, and GD is cleared */
//- qemu: TCG does not implement GD
//= n_exc=1 exc0=1:0 exc0.at=0 dr6&0x2000=0x2000 dr7&0x2000=0
#include "long64.inc"

test:
        mov     $0x2000, %eax
        mov     %rax, %dr7
        FAULTS  mov %dr0, %rbx
        mov     %dr0, %rbx
        END
