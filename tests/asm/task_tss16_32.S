/* CALL to a 16-bit TSS and IRET back: 16-bit registers and frame, ones above them, FS and GS null, the old task whole again */
//- qemu: TCG keeps the old task's upper words
//= rax=0x11111111 rbx=0x22222222 rcx=0x4000 rdx=0x40 rsi=0xffff8765 rdi=0 rbp=0x83 fs=0x10 tr=0x40 n_exc=0
//= mem16[0x7812]=0x5678
#include "prot32.inc"

test:
        movl    $0x7800002b, gdt + 0x60
        movl    $0x00008100, gdt + 0x64
        movw    $1f, 0x7800 + 14        # IP
        movw    $2, 0x7800 + 16         # FLAGS
        movw    $0x5678, 0x7800 + 18    # AX
        movw    $STACK - 0x100, 0x7800 + 26
        movw    $0x8765, 0x7800 + 30    # SI
        movw    $SEL_DATA, 0x7800 + 34
        movw    $SEL_CODE32, 0x7800 + 36
        movw    $SEL_DATA, 0x7800 + 38
        movw    $SEL_DATA, 0x7800 + 40
        mov     $0x11111111, %eax
        mov     $0x22222222, %ebx
        lcall   $0x60, $0
        mov     BUF, %ecx
        movzwl  BUF + 4, %edx
        mov     BUF + 8, %esi
        movzwl  BUF + 12, %edi
        movzbl  BUF + 16, %ebp
        END
1:      pushf
        popl    BUF
        andl    $0x4000, BUF            # NT
        mov     0x7800, %ebx
        mov     %ebx, BUF + 4           # the link
        mov     %esi, BUF + 8
        mov     %fs, BUF + 12
        mov     gdt + 0x65, %bl
        mov     %bl, BUF + 16           # busy
        iret
