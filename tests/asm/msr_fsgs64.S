/* FS and GS bases, SWAPGS, and RDFSBASE under CR4.FSGSBASE */
//= n_exc=1 exc0=6:0 rax=0x11 rbx=0x22 rcx=0xc0000102 rsi=0x20000 rdi=0x20100 r8=0x33
#include "long64.inc"

test:
        movq    $0x11, 0x20000
        movq    $0x22, 0x20100
        movq    $0x33, 0x20200
        mov     $0xc0000100, %ecx
        mov     $0x20000, %eax
        xor     %edx, %edx
        wrmsr
        inc     %ecx
        mov     $0x20200, %eax
        wrmsr
        inc     %ecx
        mov     $0x20100, %eax
        wrmsr
        FAULTS  rdfsbase %rsi
        mov     %cr4, %rax
        bts     $16, %rax
        mov     %rax, %cr4
        mov     %gs:0, %r8
        rdfsbase %rsi
        mov     %fs:0, %rax
        swapgs
        rdgsbase %rdi
        mov     %gs:0, %rbx
        END
