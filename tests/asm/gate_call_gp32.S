/* Call gates: DPL below CPL is #GP, absent is #NP */
//= n_exc=2 exc0=13:0x60 exc1=11:0x60
#include "prot32.inc"

test:
        movl    $SEL_CODE32 << 16 | 0x100, gdt + 0x60
        movl    $0x00008c00, gdt + 0x64 # DPL 0
        TO_USER
        FAULTS  lcall $0x63, $0
        movl    $0x00006c00, gdt + 0x64
        FAULTS  lcall $0x63, $0
        END_USER
