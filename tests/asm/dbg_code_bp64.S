/* DR0 on an instruction: a fault before it; RF lets it through */
//= n_exc=1 exc0=1:0 exc0.at=0 rbx=1 dr6&0xf=1
#include "long64.inc"

test:
        mov     $1f, %eax
        mov     %rax, %dr0
        mov     $2, %eax                # G0, execute
        mov     %rax, %dr7
        FAULTS  nop
        jmp     2f
1:      ud2
2:      mov     $3f, %eax
        mov     %rax, %dr0
        movq    $4f, recover
        movq    $3f, fault_at
3:      mov     $7, %ebx
4:      mov     $1, %ebx
        END
