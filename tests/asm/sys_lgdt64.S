/* SGDT and SIDT store what LGDT and LIDT loaded, ten bytes */
//= rax=0xa012345678 rbx=0x1ff rcx=0xabcdef012 rdx=0xfff
#include "long64.inc"

test:
        movw    $0x1ff, 0x20000
        mov     $0xa012345678, %rsi
        mov     %rsi, 0x20002
        sgdt    0x20020
        lgdt    0x20000
        sgdt    0x20010
        lgdt    0x20020
        mov     0x20012, %rax
        movzwl  0x20010, %ebx
        movw    $0xfff, 0x20030
        mov     $0xabcdef012, %rsi
        mov     %rsi, 0x20032
        sidt    0x20050
        lidt    0x20030
        sidt    0x20040
        lidt    0x20050
        mov     0x20042, %rcx
        movzwl  0x20040, %edx
        END
