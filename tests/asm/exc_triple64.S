/* A fault while #DF is delivered: shutdown */
//= end=shutdown
#include "long64.inc"

test:
        movw    $0x0e00, IDT + 14 * 16 + 4
        movw    $0x0e00, IDT + 8 * 16 + 4
        mov     0x40000000, %eax
        END
