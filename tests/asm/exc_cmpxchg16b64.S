/* CMPXCHG16B wants 16-byte alignment */
//= n_exc=1 exc0=13:0 rbx=0x77 rax=0x55 rdx=0x66 mem64[0x20000]=0x77 mem64[0x20008]=0x88 r8&0x40=0x40 r9&0x40=0
#include "long64.inc"

test:
        FAULTS  cmpxchg16b 0x20008
        movq    $0x55, 0x20000
        movq    $0x66, 0x20008
        mov     $0x55, %eax
        mov     $0x66, %edx
        mov     $0x77, %ebx
        mov     $0x88, %ecx
        lock cmpxchg16b 0x20000
        pushf
        pop     %r8
        movq    $0x55, 0x20010
        movq    $0x66, 0x20018
        mov     $0x1, %eax
        lock cmpxchg16b 0x20010
        pushf
        pop     %r9
        END
