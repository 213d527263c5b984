/* CR0.WP: supervisor writes to read-only pages fault only when it is set */
//= n_exc=1 exc0=14:3 exc0.cr2=0x20000 rbx=7 mem64[0x13100]&0x43=0x41
#include "long64.inc"

test:
        movq    $0x20001, PT + 0x20 * 8
        invlpg  0x20000
        FAULTS  movl $5, 0x20000
        mov     %cr0, %rax
        and     $~0x10000, %eax
        mov     %rax, %cr0
        movl    $7, 0x20000
        mov     0x20000, %ebx
        END
