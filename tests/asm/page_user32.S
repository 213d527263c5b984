/* User and supervisor, read-only, under 32-bit paging */
//= n_exc=3 exc0=14:5 exc1=14:7 exc2=14:7 rbx=9
#include "prot32.inc"

test:
        movl    $9, 0x21000
        PAGING32
        movl    $0x20003, PT32 + 0x20 * 4
        movl    $0x21005, PT32 + 0x21 * 4
        mov     %cr3, %eax
        mov     %eax, %cr3
        TO_USER
        FAULTS  mov 0x20000, %ecx
        FAULTS  mov %ecx, 0x20000
        FAULTS  mov %ecx, 0x21000
        mov     0x21000, %ebx
        END_USER
