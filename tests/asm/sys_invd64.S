/* INVD, WBINVD, CLTS, CLFLUSH, PAUSE, fences, prefetches do no harm */
//= n_exc=0 cr0&8=0 rbx=1
#include "long64.inc"

test:
        mov     %cr0, %rax
        or      $8, %rax
        mov     %rax, %cr0
        clts
        wbinvd
        clflush 0x20000
        pause
        lfence
        mfence
        sfence
        prefetcht0 (%rax)
        prefetchw (%rax)
        nopw    0x12345678(%rax,%rax)
        endbr64
        mov     $1, %ebx
        END
