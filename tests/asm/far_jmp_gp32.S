/* Far jumps: to data is #GP, to an absent segment #NP, beyond the limit #GP(0), to an outer level #GP */
//= n_exc=4 exc0=13:0x10 exc1=11:0x60 exc2=13:0 exc3=13:0x28
#include "prot32.inc"

test:
        movl    $0x0000ffff, gdt + 0x60
        movl    $0x00cf1b00, gdt + 0x64
        movl    $0x00000fff, gdt + 0x68
        movl    $0x00409b00, gdt + 0x6c
        FAULTS  ljmp $SEL_DATA, $0
        FAULTS  ljmp $0x60, $0
        FAULTS  ljmp $0x68, $0x1000
        FAULTS  ljmp $0x28, $0
        END
