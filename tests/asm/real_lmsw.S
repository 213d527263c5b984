/* SMSW, CPUID and 32-bit arithmetic in real mode; LLDT and the like are #UD */
//= n_exc=3 exc0=6:0 exc1=6:0 exc2=6:0 rax&1=0
#include "real16.inc"

test:
        FAULTS  lldt %ax
        FAULTS  .byte 0x0f, 0x00, 0xc8  # STR
        FAULTS  arpl %ax, %bx
        smsw    %ax
        END
