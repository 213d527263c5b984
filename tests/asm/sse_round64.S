/* MXCSR's rounding modes */
//= rax=2 rbx=2 rcx=3 rdx=2
#include "long64.inc"

test:
        mov     $0x4004000000000000, %rsi # 2.5
        movq    %rsi, %xmm0
        cvtsd2si %xmm0, %eax
        movl    $0x3f80, 0x20000
        ldmxcsr 0x20000
        cvtsd2si %xmm0, %ebx            # down
        movl    $0x5f80, 0x20000
        ldmxcsr 0x20000
        cvtsd2si %xmm0, %ecx            # up
        movl    $0x7f80, 0x20000
        ldmxcsr 0x20000
        cvtsd2si %xmm0, %edx            # to zero
        END
