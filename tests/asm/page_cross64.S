/* An instruction on two pages, as either page is written and as the second is mapped elsewhere */
//= rax=0x44336655 rbx=0x70 rdx=0x4433 rsi=0x8877 rdi=0x4455 rbp=0x44336655
#include "long64.inc"

#define FIRST  0x30000
#define SECOND 0x31000
#define OTHER  0x32000

        /* `inc ebx` falls through into `mov eax, 0x44332211`, whose last two bytes and the `ret` are on the second page. */
test:
        mov     $0xb8c3ff, %eax
        mov     %eax, FIRST + 0xffb
        movw    $0x2211, FIRST + 0xffe
        movw    $0x4433, SECOND
        movb    $0xc3, SECOND + 2
        movw    $0x8877, OTHER
        movb    $0xc3, OTHER + 2
        call    many
        shr     $16, %eax
        mov     %eax, %edx              # as it stands: 0x4433
        movl    $OTHER + 7, PT + SECOND / 4096 * 8
        invlpg  SECOND
        call    many
        shr     $16, %eax
        mov     %eax, %esi              # the other page: 0x8877
        movl    $SECOND + 7, PT + SECOND / 4096 * 8
        invlpg  SECOND
        movb    $0x55, SECOND
        call    many
        shr     $16, %eax
        mov     %eax, %edi              # its second page written: 0x4455
        movb    $0x33, SECOND
        movw    $0x6655, FIRST + 0xffe
        call    many                    # its first
        mov     %eax, %ebp
        movw    $0x2211, OTHER + 0x10   # beside it: nothing changes
        call    many
        call    many
        call    many
        END

many:
        mov     $0x10, %ecx
1:      mov     $FIRST + 0xffb, %eax
        call    *%rax
        loop    1b
        ret
