/* 16-bit addressing in 32-bit code: BX+SI+disp wraps at 64 KiB */
//= rax=0x77 rbx=0x1fff0 rcx=0x500
#include "prot32.inc"

test:
        movl    $0x77, 0x500
        mov     $0x1fff0, %ebx
        mov     $0x500, %esi
        addr16 mov 0x10(%bx,%si), %eax
        addr16 lea 0x10(%bx,%si), %ecx
        END
