/* A task switch by JMP: registers saved and loaded, busy bits, link unused */
//= rax=0x11111111 rbx=0x48 rcx=0x89 rdx=0x8b rsi=0xabcd cr0&8=8
#include "prot32.inc"

test:
        call    make_task
        mov     $0xabcd, %esi
        ljmp    $0x60, $0
        END
make_task:
        movl    $0x00000067 | 0x7800 << 16 & 0xffff0000, gdt + 0x60
        movl    $0x78000067, gdt + 0x60
        movl    $0x00008900, gdt + 0x64
        movl    $1f, 0x7800 + 32        # EIP
        movl    $2, 0x7800 + 36
        movl    $0x11111111, 0x7800 + 40
        movl    $STACK - 0x100, 0x7800 + 56
        movl    $SEL_DATA, 0x7800 + 72  # ES
        movl    $SEL_CODE32, 0x7800 + 76
        movl    $SEL_DATA, 0x7800 + 80
        movl    $SEL_DATA, 0x7800 + 84
        movl    $0, 0x7800 + 88
        movl    $0, 0x7800 + 92
        movl    $0, 0x7800 + 96
        movw    $0x68, 0x7800 + 102
        ret
1:      mov     $0x48, %ebx
        movzbl  gdt + SEL_TSS + 5, %ecx # no longer busy
        movzbl  gdt + 0x65, %edx        # busy
        mov     TSS + 64, %esi          # the old task's ESI
        END
