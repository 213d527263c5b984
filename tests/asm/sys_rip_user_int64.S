/* A software interrupt through a gate of DPL 0 from CPL 3: #GP with the vector */
//- qemu: TCG 7.2 puts the vector times 16 into the error code
//= n_exc=1 exc0=13:0x10a exc0.at=0
#include "long64.inc"

test:
        TO_USER
        FAULTS  int $0x21
        END_USER
