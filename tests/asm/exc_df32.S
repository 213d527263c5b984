/* A fault on a stack segment that cannot be pushed to: #DF through a task gate is needed, else shutdown */
//= end=shutdown
#include "prot32.inc"

test:
        mov     $0, %eax
        lidtl   2f
        ud2
        END
        .balign 8
        .word   0
2:      .word   0
        .long   0
