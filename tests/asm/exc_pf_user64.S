/* #PF from CPL 3 on supervisor pages: P and U set */
//= n_exc=3 exc0=14:5 exc0.cr2=0x200000 exc1=14:7 exc2=14:0x15
#include "long64.inc"

test:
        mov     $0x200000, %ebx
        mov     (%rbx), %eax            # supervisor: fine
        TO_USER
        FAULTS  mov (%rbx), %eax
        FAULTS  mov %eax, (%rbx)
        FAULTS  jmp *%rbx
        END_USER
