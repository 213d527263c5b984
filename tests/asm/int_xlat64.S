/* XLAT, LAHF, SAHF, CMC */
//= rbx=0x20000 rcx=0xd7 rdx=0x02 rsi=0x99
#include "long64.inc"

test:
        mov     $0x20000, %ebx
        movb    $0x99, 0x200f0
        mov     $0x12345f0, %eax
        xlatb
        movzbl  %al, %esi
        mov     $0xff, %ah
        sahf
        xor     %eax, %eax
        mov     $0xff, %ah
        sahf
        lahf
        movzbl  %ah, %ecx               # bits 1 and the five flags
        mov     $0, %ah
        sahf
        lahf
        movzbl  %ah, %edx
        END
