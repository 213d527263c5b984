/* Alignment check: CR0.AM and RFLAGS.AC at CPL 3: #AC(0); none at CPL 0 */
//- qemu: TCG has no alignment checks
//= n_exc=3 exc0=17:0 exc0.at=0 exc1=17:0 exc2=17:0 rbx=0x11
#include "long64.inc"

test:
        mov     %cr0, %rax
        bts     $18, %rax
        mov     %rax, %cr0
        pushf
        orl     $0x40000, (%rsp)
        popf
        mov     0x20001, %eax           # CPL 0
        TO_USER
        mov     0x20001, %eax           # AC clear
        pushf
        orl     $0x40000, (%rsp)
        popf
        FAULTS  mov 0x20001, %eax
        FAULTS  mov %ax, 0x20003
        FAULTS  movq 0x20004, %xmm0
        mov     0x20003, %al
        mov     0x20004, %eax
        movdqu  0x20001, %xmm0
        mov     $0x11, %ebx
        END_USER
