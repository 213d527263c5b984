/* 32-bit paging: 4 MiB pages, #PF's error codes, CR2 */
//= n_exc=2 exc0=14:0 exc0.cr2=0x800000 exc1=14:3 rax=0x55 rbx&0x60=0x60
#include "prot32.inc"

test:
        movl    $0x400083, PD32 + 4
        mov     %cr4, %eax
        or      $0x10, %eax
        mov     %eax, %cr4
        PAGING32
        movl    $0x55, 0x420000
        mov     0x420000, %eax
        mov     PD32 + 4, %ebx
        FAULTS  mov 0x800000, %ecx
        movl    $0x20001, PT32 + 0x20 * 4
        invlpg  0x20000
        FAULTS  movl $1, 0x20000
        END
