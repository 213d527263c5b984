/* #PF on a page that is not there: read, write, fetch, from both privilege levels (SDM Vol. 3A 4.7) */
//= n_exc=6 exc0=14:0 exc0.cr2=0x40000123 exc0.at=0 exc1=14:2 exc1.cr2=0x40000124 exc2=14:0x10 exc2.cr2=0x40000000 exc3=14:4 exc4=14:6 exc5=14:0x14
#include "long64.inc"

test:
        mov     $0x40000123, %ebx
        mov     $0x40000000, %ecx
        FAULTS  mov (%rbx), %eax
        FAULTS  mov %al, 1(%rbx)
        FAULTS  jmp *%rcx
        TO_USER
        mov     $0x40000123, %ebx
        FAULTS  mov (%rbx), %eax
        FAULTS  mov %al, 1(%rbx)
        FAULTS  jmp *%rcx
        END_USER
