/*
 * Flags over a conditional jump out of straight code: what comes behind it overwrites all of them, but where it leads to one of them is read
 * that was set before an instruction which leaves it alone.
 */
//= rbx=4 r11=4 rsi=4 rdi=4 r8=4
#include "long64.inc"

        .macro  ROUNDS reg, down:vararg
        mov     $4, %ecx
        movl    $4, 0x20000
        stc
1:      adc     $0, \reg                # clears CF
        cmc
        \down
        jg      1b
        mul     %r9d
        .endm

test:
        mov     $0x20000, %r10d
        ROUNDS  %ebx, decl 0x20000
        ROUNDS  %r11d, dec %ecx
        ROUNDS  %esi, lock decl 0x20000
        ROUNDS  %edi, decq (%r10)
        ROUNDS  %r8d, decb (%r10)
        END
