/* REPNE SCAS and REPE CMPS stop where they should */
//= rcx=3 rdi=0x20007 rbx=5 rdx=0x20105 r8&0x40=0x40
#include "long64.inc"

test:
        movl    $0x64636261, 0x20000
        movl    $0x67666564, 0x20004
        mov     $0x20000, %edi
        mov     $10, %ecx
        mov     $'f', %al
        repne scasb
        pushf
        pop     %r8
        mov     %rcx, %r9
        mov     %rdi, %r10
        movl    $0x64636261, 0x20100
        movl    $0x00006664, 0x20104
        mov     $0x20000, %esi
        mov     $0x20100, %edi
        mov     $10, %ecx
        repe cmpsb                      # the sixth differs: e and f
        mov     %ecx, %ebx
        inc     %ebx
        mov     %edi, %edx
        dec     %edx
        mov     %r9, %rcx
        mov     %r10, %rdi
        END
