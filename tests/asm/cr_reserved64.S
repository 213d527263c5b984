/* Reserved bits of CR4, CR3, CR8, and CRs that do not exist */
//- qemu: TCG ignores some reserved bits
//= n_exc=5 exc0=13:0 exc1=13:0 exc2=6:0 exc3=6:0 exc4=13:0
#include "long64.inc"

test:
        mov     %cr4, %rax
        bts     $15, %rax
        FAULTS  mov %rax, %cr4
        mov     %cr3, %rax
        bts     $60, %rax
        FAULTS  mov %rax, %cr3
        FAULTS  .byte 0x0f, 0x20, 0xc8  # CR1
        FAULTS  .byte 0x0f, 0x22, 0xe8  # CR5
        mov     $0x10, %eax
        FAULTS  mov %rax, %cr8
        END
