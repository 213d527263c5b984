/* LDMXCSR with a reserved bit is #GP(0) */
//- qemu: TCG takes any value
//= n_exc=1 exc0=13:0 rbx=0x1f80
#include "long64.inc"

test:
        movl    $0x10000, 0x20000
        FAULTS  ldmxcsr 0x20000
        stmxcsr 0x20000
        mov     0x20000, %ebx
        END
