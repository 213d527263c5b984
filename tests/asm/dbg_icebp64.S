/* INT1 is a trap */
//- qemu: TCG raises #UD
//= n_exc=1 exc0=1:0 exc0.at=1
#include "long64.inc"

test:
        FAULTS  .byte 0xf1
        END
