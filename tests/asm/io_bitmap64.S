/* The I/O bitmap at CPL 3: allowed ports, refused ones, words across the border, its end */
//= n_exc=4 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 rax=0xff rbx=0xffff
#include "long64.inc"

test:
        movb    $0xf0, TSS + 0x68 + 2   # ports 0x10 to 0x13 allowed
        TO_USER
        in      $0x10, %al
        in      $0x12, %ax
        mov     %eax, %ebx
        FAULTS  in $0x14, %al
        FAULTS  in $0x13, %ax
        FAULTS  in $0x11, %eax
        mov     $0x500, %edx            # beyond the TSS's limit
        FAULTS  in %dx, %al
        mov     $0xff, %eax
        movzwl  %bx, %ebx
        END_USER
