/* PAE paging: two levels under four pointers, NX */
//= n_exc=2 exc0=14:0x11 exc1=14:0 rax=0x77
#include "prot32.inc"

test:
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x800, %eax
        wrmsr
        movl    $0x77, 0x20000
        PAGING_PAE
        mov     0x20000, %eax
        mov     %eax, %ebx
        movb    $0xc3, 0x20000
        orl     $0x80000000, PAE_PT + 0x20 * 8 + 4
        invlpg  0x20000
        mov     $0x20000, %edi
        FAULTS  call *%edi
        FAULTS  mov 0x40000000, %ecx
        mov     %ebx, %eax
        END
