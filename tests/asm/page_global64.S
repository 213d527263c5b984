/* A global page outlives a write to CR3 but not INVLPG or a change of CR4.PGE */
//- qemu: TCG flushes everything
//= rax=1 rbx=2 rcx=3
#include "long64.inc"

test:
        mov     %cr4, %rdx
        bts     $7, %rdx
        mov     %rdx, %cr4
        movl    $1, 0x20000
        movl    $2, 0x21000
        movl    $3, 0x22000
        movq    $0x20107, PT + 0x20 * 8
        invlpg  0x20000
        mov     0x20000, %esi
        movq    $0x21107, PT + 0x20 * 8
        mov     %cr3, %rsi
        mov     %rsi, %cr3
        mov     0x20000, %eax
        invlpg  0x20000
        mov     0x20000, %ebx
        movq    $0x22107, PT + 0x20 * 8
        btr     $7, %rdx
        mov     %rdx, %cr4
        mov     0x20000, %ecx
        cmp     $1, %eax                # it need not be cached at all
        je      1f
        mov     $1, %eax
1:
        END
