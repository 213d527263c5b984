/* INT3 is a trap: RIP behind it, RF clear; INT n likewise through its gate */
//= n_exc=3 exc0=3:0 exc0.at=1 exc0.flags&0x10000=0 exc1=3:0 exc1.at=2 exc2=4:0 exc2.at=2
#include "long64.inc"

test:
        FAULTS  int3
        FAULTS  .byte 0xcd, 3
        FAULTS  int $4
        END
