/* Two mappings of one page see each other's writes, code included */
//= rax=0x11 rbx=0x22 rcx=0x22
#include "long64.inc"

test:
        mov     $0xffff800000020000, %rsi
        movb    $0xb8, 0x20000          # mov eax, 0x11; ret
        movl    $0x11, 0x20001
        movb    $0xc3, 0x20005
        mov     $0x20000, %edi
        call    *%rdi
        mov     %eax, %edx
        movl    $0x22, 1(%rsi)
        call    *%rdi
        mov     %eax, %ebx
        call    *%rsi
        mov     %eax, %ecx
        mov     %edx, %eax
        END
