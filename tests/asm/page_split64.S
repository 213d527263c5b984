/* An instruction on two pages, the second of which is written, mapped anew and made unexecutable between its runs */
//= n_exc=1 exc0=14:0x11 exc0.cr2=0x21000 exc0.flags&0x8d5=0x45 rbx=0x00110000 rcx=0x00220000 rdx=0x00330000 rsi=0x00330000 rdi&0x8d5=0x45
#include "long64.inc"

.macro  CALL_TWICE to:req
        call    *%rbp
        xor     %eax, %eax
        call    *%rbp
        mov     %eax, \to
.endm

test:
        movl    $0x0000b890, 0x20ffc    # nop; mov ...
        movl    $0x00c30011, 0x21000    # ... $0x110000, %eax; ret
        mov     $0x20ffd, %ebp
        CALL_TWICE %ebx
        movb    $0x22, 0x21000
        CALL_TWICE %ecx
        movl    $0x00c30033, 0x22000
        movq    $0x22007, PT + 0x21 * 8
        invlpg  0x21000
        CALL_TWICE %edx
        mov     $0x8000000000022007, %rax
        mov     %rax, PT + 0x21 * 8
        invlpg  0x21000
        cmp     %eax, %eax
        movq    $1f, recover
        stc
        call    *%rbp
1:      pushfq
        pop     %rdi
        movq    $0x22007, PT + 0x21 * 8
        invlpg  0x21000
        CALL_TWICE %esi
        END
