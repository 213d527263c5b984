/* DR4 and DR5: aliases, or #UD under CR4.DE; upper bits of DR6 and DR7 are #GP */
//= n_exc=2 exc0=6:0 exc1=13:0 rax=0x400
#include "long64.inc"

test:
        mov     %dr5, %rax
        mov     %cr4, %rcx
        or      $8, %ecx
        mov     %rcx, %cr4
        FAULTS  mov %dr5, %rbx
        mov     $0x100000000, %rbx
        FAULTS  mov %rbx, %dr7
        END
