/* TF traps after every iteration of REP */
//= n_exc=1 exc0=1:0 exc0.at=0 rcx=4 rdi=0x20001
#include "long64.inc"

test:
        mov     $0x20000, %edi
        mov     $5, %ecx
        pushf
        orl     $0x100, (%rsp)
        movq    $2f, recover
        movq    $1f, fault_at
        popf
1:      rep stosb
2:
        END
