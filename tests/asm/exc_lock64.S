/* LOCK where it is not allowed, and with a register destination, is #UD */
//- qemu: TCG lets some of these pass
//= n_exc=6 exc0=6:0 exc1=6:0 exc2=6:0 exc3=6:0 exc4=6:0 exc5=6:0 rbx=1
#include "long64.inc"

test:
        FAULTS  .byte 0xf0, 0x90
        FAULTS  .byte 0xf0, 0x01, 0xc0                  # lock add eax, eax
        FAULTS  .byte 0xf0, 0x8b, 0x04, 0x25, 0,0,2,0   # lock mov
        FAULTS  .byte 0xf0, 0x39, 0x04, 0x25, 0,0,2,0   # lock cmp
        FAULTS  .byte 0xf0, 0x03, 0x04, 0x25, 0,0,2,0   # lock add eax, [m]
        FAULTS  .byte 0xf0, 0x0f, 0xa3, 0x04, 0x25, 0,0,2,0 # lock bt
        lock incl 0x20000
        mov     0x20000, %ebx
        END
