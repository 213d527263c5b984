/* LAR and LSL for every type of system descriptor, as sets of those they answer for; null and privilege */
//= rax=0x1a3e rbx=0x0a0e rcx=0 rdx=0 rsi=0x40 rdi=0 n_exc=0
#include "prot32.inc"

test:
        xor     %ebp, %ebp
        xor     %eax, %eax
        xor     %ebx, %ebx
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
        xor     %edx, %edx
        lar     %edx, %ecx              # null: ZF clear, nothing written
        mov     $0, %ecx
        mov     $0x63, %edx             # RPL 3 of a DPL 0 segment
        movb    $0x93, gdt + 0x65
        verr    %dx
        mov     $0, %edx
        pushf
        pop     %edi
        and     $0x40, %edi
        mov     $0x63, %edx
        movb    $0x9f, gdt + 0x65       # conforming: for all
        verr    %dx
        mov     $0, %edx
        pushf
        pop     %esi
        and     $0x40, %esi
        END
