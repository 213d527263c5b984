/* Privileged instructions at CPL 3, 32-bit */
//= n_exc=6 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 exc4=13:0 exc5=13:0 rbx=0
#include "prot32.inc"

test:
        TO_USER
        FAULTS  hlt
        FAULTS  cli
        FAULTS  mov %cr0, %eax
        FAULTS  mov %eax, %dr0
        FAULTS  rdmsr
        FAULTS  in $0x21, %al
        END_USER
