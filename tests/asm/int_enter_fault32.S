/* ENTER that can not be finished writes nothing: an outer frame that can not be read, a last slot that can not be written */
//- qemu: TCG writes as it goes
//= n_exc=2 exc0=14:4 exc0.cr2=0x2f008 exc1=14:6 exc1.cr2=0x28ffc mem32[0x2a00c]=0 mem32[0x2a008]=0 mem32[0x2900c]=0 rbp=0x2a100 rbx=0x29010
#include "prot32.inc"

test:
        PAGING32
        movl    $0, PT32 + 0x2f * 4
        movl    $0, PT32 + 0x28 * 4
        mov     %cr3, %eax
        mov     %eax, %cr3
        TO_USER
        mov     $0x2a010, %esp
        mov     $0x2f00c, %ebp
        FAULTS  enter $0, $3            # reads 0x2f008 and 0x2f004
        mov     $0x2a100, %ebp
        mov     $0x29010, %esp
        FAULTS  enter $0, $4            # 0x2900c down to 0x28ffc
        mov     %esp, %ebx
        END_USER
