/* FXSAVE and FXRSTOR carry registers, tags and MXCSR */
//= rax=0x80 rbx=0x1fa0 rcx=0x3fff rdx=0x55 rsi=0x55
#include "long64.inc"

test:
        fninit
        fld1
        movl    $0x1fa0, 0x20200
        ldmxcsr 0x20200
        mov     $0x55, %edx
        movd    %edx, %xmm15
        fxsave64 0x20000
        fninit
        movl    $0x1f80, 0x20200
        ldmxcsr 0x20200
        pxor    %xmm15, %xmm15
        fxrstor64 0x20000
        movzbl  0x20004, %eax
        stmxcsr 0x20204
        mov     0x20204, %ebx
        movd    %xmm15, %esi
        fstpt   0x20210
        movzwl  0x20218, %ecx
        END
