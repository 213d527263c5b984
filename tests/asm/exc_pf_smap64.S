/* SMAP: supervisor data accesses to user pages fault unless AC is set */
//= n_exc=2 exc0=14:1 exc1=14:3 rbx=0x42 rcx=0x43
#include "long64.inc"

test:
        movl    $0x42, 0x20000
        mov     $PT + 5 * 8, %edi       # all the test uses, but 0x20000
1:      andb    $~4, (%rdi)
        add     $8, %edi
        cmp     $PT + 0x18 * 8, %edi
        jb      1b
        mov     %cr3, %rax
        mov     %rax, %cr3
        mov     %cr4, %rax
        bts     $21, %rax
        mov     %rax, %cr4
        FAULTS  mov 0x20000, %eax
        FAULTS  movl $1, 0x20000
        stac
        mov     0x20000, %ebx
        movl    $0x43, 0x20000
        mov     0x20000, %ecx
        clac
        END
