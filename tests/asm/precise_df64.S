/* DF changed and changed back in straight code, and what string instructions between make of it; hot. */
//= rbx=0 rdi=0x20000 r8=0x20008 rflags&0x400=0 rdx=0x400 rsi=0x20064
#include "long64.inc"

test:
        mov     $50, %r15d
1:      mov     $0x20000, %edi
        mov     $0x20000, %esi
        std
        cld
        pushf                           # clear
        pop     %rax
        and     $0x400, %eax
        or      %eax, %ebx
        stosq
        mov     %rdi, %r8
        cld
        std
        stosq                           # back
        std
        pushf
        pop     %rdx
        and     $0x400, %edx
        cld
        mov     $100, %ecx
        rep lodsb
        std
        nop
        cld
        dec     %r15d
        jnz     1b
        END
