/* INT n through a gate of no type and through one that is not present: #GP and #NP with the vector */
//- qemu: TCG 7.2 puts the vector times 16 into the error code
//= n_exc=2 exc0=13:0x29a exc0.at=0 exc1=11:0x29a exc1.at=0
#include "long64.inc"

test:
        FAULTS  int $0x53               # the gate is 0: its type is none: #GP(vector * 8 + 2)
        movw    $0x0e00, IDT + 0x53 * 16 + 4
        FAULTS  int $0x53
        END
