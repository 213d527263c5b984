/* String instructions: REP, DF, address size */
//= mem64[0x20100]=0x1122334455667788 mem64[0x20108]=0x99aabbccddeeff00 rcx=0 rdi=0x20110 rsi=0x20010 rax=0x5a5a mem32[0x20200]=0x5a5a5a5a mem32[0x201fc]=0x5a5a5a5a
#include "long64.inc"

test:
        movq    $0, 0x20200
        mov     $0x1122334455667788, %rax
        mov     %rax, 0x20000
        mov     $0x99aabbccddeeff00, %rax
        mov     %rax, 0x20008
        mov     $0x20202, %edi
        mov     $4, %ecx
        mov     $0x5a5a, %eax
        std
        rep stosw                       # 0x20202 down to 0x201fc
        cld
        mov     $0xf00020000, %rsi
        mov     $0xf00020100, %rdi
        mov     $0xf00000002, %rcx
        addr32 rep movsq                # 32-bit registers, upper halves cleared
        add     $0, %rdi
        END
