/* A program in 32-bit code under a 64-bit kernel: exceptions come and go */
//= n_exc=2 exc0=6:0 exc0.at=0 exc1=13:0 rbx=0x2b
#include "long64.inc"

test:
        mov     $SEL_UDATA, %eax
        mov     %eax, %ds               # the kernel's would be null after IRET
        mov     $USTACK, %eax
        push    $SEL_UDATA
        push    %rax
        push    $2
        push    $SEL_UCODE32
        push    $1f
        iretq
        .code32
1:      movl    $3f, recover
        movl    $2f, fault_at
2:      ud2
3:      movl    $5f, recover
        movl    $4f, fault_at
4:      hlt
5:      mov     %cs, %ebx
        int     $0x30
        END
