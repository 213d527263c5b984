/* SMEP: supervisor code on user pages faults, with P and I */
//= n_exc=1 exc0=14:0x11 exc0.cr2=0x20000 rbx=0x99
#include "long64.inc"

test:
        movb    $0xc3, 0x20000
        mov     $0x20000, %ebx
        call    *%rbx
        mov     $0x99, %ebx
        # the image itself must become supervisor's first
        mov     $PT + 0xa * 8, %edi
1:      andb    $~4, (%rdi)
        add     $8, %edi
        cmp     $PT + 0x10 * 8, %edi
        jb      1b
        mov     %cr3, %rax
        mov     %rax, %cr3
        mov     %cr4, %rax
        bts     $20, %rax
        mov     %rax, %cr4
        mov     $0x20000, %ecx
        FAULTS  call *%rcx
        END
