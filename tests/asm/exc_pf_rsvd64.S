/* Reserved bits in a page-table entry: RSVD is set together with P */
//- qemu: TCG leaves P clear beside RSVD
//= n_exc=3 exc0=14:9 exc1=14:0xb exc2=14:9 exc2.cr2=0x400000
#include "long64.inc"

test:
        mov     $0x000f000000020007, %rax
        btr     $52, %rax
        mov     $0x0008000000020007, %rax
        mov     %rax, PT + 0x20 * 8
        invlpg  0x20000
        FAULTS  mov 0x20000, %eax
        FAULTS  mov %eax, 0x20000
        movl    $0x402083, PD + 2 * 8   # bit 13 of a 2 MiB page is reserved
        invlpg  0x400000
        FAULTS  mov 0x400000, %eax
        END
