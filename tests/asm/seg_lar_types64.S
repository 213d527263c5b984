/* The same in IA-32e mode: no 16-bit TSS or gates, no task gates */
//- qemu: TCG answers for the types of 16-bit modes (SDM Vol. 2A tables 3-53 and 3-61)
//= rax=0x1a04 rbx=0x0a04 n_exc=0
#include "long64.inc"

test:
        movq    $0, gdt + 0x68
1:      movl    $0x00001000, gdt + 0x60
        mov     %ebp, %ecx
        or      $0x80, %ecx
        movl    $0, gdt + 0x64
        mov     %cl, gdt + 0x65
        mov     $0x60, %edx
        lar     %edx, %esi
        jnz     2f
        bts     %ebp, %eax
2:      lsl     %edx, %esi
        jnz     2f
        bts     %ebp, %ebx
2:      inc     %ebp
        cmp     $16, %ebp
        jb      1b
        END
