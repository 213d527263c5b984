/* A breakpoint at a repeated string instruction is met once, with RF set in between, however many iterations there are */
//- qemu: TCG never sets RF
//= n_exc=1 exc0=1:0 rcx=0 rbx=7 rdx=0x77 dr6&0xf=1
#include "long64.inc"

test:
        mov     $2f, %eax
        mov     %rax, %dr0
        mov     $0x402, %eax
        mov     %rax, %dr7
        movq    $1f, recover
        mov     $BUF, %edi
        mov     $7, %ecx
        mov     $0x77, %eax
        jmp     2f
1:      push    $SEL_DATA               # again, with RF
        push    $STACK
        push    $0x10002
        push    $SEL_CODE64
        push    $2f
        movq    $3f, recover
        iretq
2:      rep stosb
3:      mov     %edi, %ebx
        sub     $BUF, %ebx
        mov     BUF + 6, %dl
        END
