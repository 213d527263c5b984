/* SYSRET to an RCX that is not canonical: #GP(0) at CPL 0 */
//- qemu: TCG checks nothing
//= n_exc=1 exc0=13:0 exc0.at=0 rbx=0x18
#include "long64.inc"

test:
        mov     $0x800000000000, %rcx
        mov     $2, %r11d
        FAULTS  sysretq
        mov     %cs, %ebx
        END
