/* MOVBE and BSWAP */
//= rax=0x0807060504030201 rbx=0x3412 mem32[0x20010]=0x01020304 rcx=0x04030201 rdx=0xf0debc9a78563412
#include "long64.inc"

test:
        mov     $0x0102030405060708, %rdx
        mov     %rdx, 0x20000
        movbe   0x20000, %rax
        movw    $0x1234, 0x20008
        movbe   0x20008, %bx
        mov     $0x04030201, %ecx
        movbe   %ecx, 0x20010
        mov     $0x123456789abcdef0, %rdx
        bswap   %rdx
        END
