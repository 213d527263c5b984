/* SMAP and a handler's stack on a user page: at the same level EFLAGS.AC lifts it, as for any explicit access */
//= n_exc=1 exc0=6:0 exc0.at=0 rbx=1
#include "long64.inc"

test:
        mov     $0xfb, %ecx             # what is accessed implicitly is the supervisor's: IDT, TSS, GDT; so is the code
        .irp    page, 0x5, 0x7, 0xa, 0xb, 0xc
        andb    %cl, PT + \page * 8
        .endr
        mov     %cr3, %rax
        mov     %rax, %cr3
        mov     %cr4, %rax
        bts     $21, %rax
        stac
        mov     %rax, %cr4
        FAULTS  ud2
        mov     $1, %ebx
        END
