/* INT n through a task gate and IRET back behind it; a busy TSS, an absent one and one too short refuse */
//= rax=0x33 rbx=2 rcx=0x4000 n_exc=4 exc0=13:0x60 exc1=11:0x60 exc2=10:0x60 exc3=13:0x102 tr=0x40
#include "prot32.inc"

test:
        movl    $0x78000067, gdt + 0x60
        movl    $0x00008900, gdt + 0x64
        movl    $1f, 0x7800 + 32
        movl    $2, 0x7800 + 36
        movl    $STACK - 0x100, 0x7800 + 56
        movl    $SEL_DATA, 0x7800 + 72
        movl    $SEL_CODE32, 0x7800 + 76
        movl    $SEL_DATA, 0x7800 + 80
        movl    $SEL_DATA, 0x7800 + 84
        movl    $0x00600000, IDT + 32 * 8
        movl    $0x0000e500, IDT + 32 * 8 + 4
        mov     $0x33, %eax
        int     $32
        inc     %ebx
        int     $32                     # goes on behind its own IRET
        inc     %ebx
        movb    $0x8b, gdt + 0x65
        FAULTS  int $32
        movb    $0x09, gdt + 0x65
        FAULTS  int $32
        movb    $0x89, gdt + 0x65
        movw    $0x66, gdt + 0x60
        FAULTS  int $32
        movb    $0x05, IDT + 32 * 8 + 5 # DPL 0 and absent: DPL first, but only at CPL 3
        movb    $0x80 | 0x1f, IDT + 32 * 8 + 5
        FAULTS  int $32
        mov     BUF, %ecx
        END
1:      pushf
        popl    BUF
        andl    $0x4000, BUF
        iretl
        jmp     1b
