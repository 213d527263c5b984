/* Loading CR3 with reserved bits in a present PDPTE is #GP(0) */
//- qemu: TCG does not load PDPTEs
//= n_exc=1 exc0=13:0 rax=1
#include "prot32.inc"

test:
        PAGING_PAE
        movl    $1, 0x30000
        mov     PAE_PDPT, %eax
        or      $0x6, %eax              # R/W and U/S are reserved here
        mov     %eax, 0x30000
        mov     $0x30000, %eax
        FAULTS  mov %eax, %cr3
        mov     $1, %eax
        END
