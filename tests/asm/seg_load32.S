/* Loading segments: type, privilege and presence, each with its error code */
//= n_exc=7 exc0=13:0x60 exc1=11:0x68 exc2=12:0x68 exc3=13:0x30 exc4=13:0x200 exc5=13:0x70 exc6=13:0x40 fs=0x8
#include "prot32.inc"

test:
        movl    $0x0000ffff, gdt + 0x60
        movl    $0x00cf9900, gdt + 0x64 # execute only
        movl    $0x0000ffff, gdt + 0x68
        movl    $0x00cf1300, gdt + 0x6c # data, not present
        movl    $0x0000ffff, gdt + 0x70
        movl    $0x00cf9100, gdt + 0x74 # read only
        mov     $0x60, %eax
        FAULTS  mov %eax, %ds
        mov     $0x68, %eax
        FAULTS  mov %eax, %es
        FAULTS  mov %eax, %ss
        mov     $0x30, %eax             # DPL 3
        FAULTS  mov %eax, %ss
        mov     $0x200, %eax
        FAULTS  mov %eax, %fs
        mov     $0x70, %eax
        FAULTS  mov %eax, %ss
        mov     $SEL_TSS, %eax
        FAULTS  mov %eax, %gs
        mov     $SEL_CODE32, %eax
        mov     %eax, %fs               # readable code
        END
