/* The single-step trap of HLT ends its halt, and returns behind it */
//- qemu: TCG stays halted
//= n_exc=1 exc0=1:0 exc0.at=1 dr6&0x4000=0x4000
#include "long64.inc"

test:
        movq    $1f, fault_at
        pushf
        orl     $0x100, (%rsp)
        popf
1:      hlt
        END
