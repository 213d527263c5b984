/* DR1 on data: a trap after the access; writes only, and any access */
//= n_exc=2 exc0=1:0 exc0.at=11 exc1=1:0 rbx=5 rcx=5
#include "long64.inc"

test:
        mov     $0x20004, %eax
        mov     %rax, %dr1
        mov     $0x00d00008, %eax       # G1, write, 4 bytes
        mov     %rax, %dr7
        mov     0x20004, %ecx           # reading does not match
        FAULTS  movl $5, 0x20004
        mov     $0x00f00008, %eax       # any access
        mov     %rax, %dr7
        FAULTS  mov 0x20006, %bx
        xor     %eax, %eax
        mov     %rax, %dr7
        mov     0x20004, %ebx
        mov     0x20004, %ecx
        END
