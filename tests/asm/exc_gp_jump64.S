/* A jump to an address that is not canonical faults at the jump; so do RET and CALL, which leave RSP */
//- qemu: TCG saves the target as RIP, as AMD does
//= n_exc=3 exc0=13:0 exc0.at=0 exc1=13:0 exc1.at=0 exc2=13:0 exc2.at=0 rcx=0
#include "long64.inc"

test:
        mov     $0x8000000000000000, %rbx
        FAULTS  jmp *%rbx
        mov     %rsp, %rcx
        FAULTS  call *%rbx
        sub     %rsp, %rcx
        push    %rbx
        FAULTS  ret
        END
