/* INS and OUTS: absent ports read as ones; a fault in memory leaves the registers */
//= n_exc=1 exc0=14:2 rdi=0x20ffe rcx=0 rax=0xffff rbx=0x21000
#include "long64.inc"

test:
        mov     $0x20ffe, %edi
        mov     $0x9ff0, %edx
        mov     $1, %ecx
        rep insw
        movzwl  0x20ffe, %eax
        movb    $0, PT + 0x21 * 8
        invlpg  0x21000
        FAULTS  insw
        mov     %edi, %ebx
        mov     $0x20ffe, %edi
        END
