/* A benign exception and then a contributory one are served one after the other */
//- qemu: TCG 7.2 puts the vector times 16 into the error code
//= n_exc=1 exc0=11:0x33 exc0.at=0
#include "long64.inc"

test:
        movw    $0x0e00, IDT + 6 * 16 + 4
        FAULTS  ud2                     # #UD, then #NP(6 * 8 + IDT + EXT)
        END
