/* Faults push RF set, traps clear (SDM Vol. 3B 17.3.1.1) */
//- qemu: TCG never sets RF
//= n_exc=3 exc0.flags&0x10000=0x10000 exc1.flags&0x10000=0x10000 exc2.flags&0x10000=0
#include "long64.inc"

test:
        FAULTS  ud2
        FAULTS  mov 0x40000000, %eax
        FAULTS  int3
        END
