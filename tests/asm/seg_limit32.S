/* Limits: #GP beyond, expand-down segments below; #SS for the stack */
//- qemu: TCG checks no limits
//= n_exc=5 exc0=13:0 exc1=13:0 exc2=13:0 exc3=12:0 exc4=13:0 rbx=0x41
#include "prot32.inc"

test:
        movl    $0x00000fff, gdt + 0x60 # base 0, limit 0xfff
        movl    $0x00409300, gdt + 0x64
        movl    $0x00000fff, gdt + 0x68 # expand down: 0x1000 and up
        movl    $0x00409700, gdt + 0x6c
        movl    $0x00409100, gdt + 0x74 # read only
        movl    $0x0000ffff, gdt + 0x70
        movb    $0x41, 0x1000
        mov     $0x60, %eax
        mov     %eax, %fs
        mov     $0x68, %eax
        mov     %eax, %gs
        mov     $0x70, %eax
        mov     %eax, %es
        mov     %fs:0xffc, %ecx
        FAULTS  mov %fs:0xffd, %ecx
        mov     %gs:0x1000, %bl
        FAULTS  mov %gs:0xfff, %cl
        FAULTS  movb $1, %es:0x500
        mov     $0x60, %eax
        mov     $0x800, %ecx
        mov     %esp, %esi
        mov     %eax, %ss
        mov     $0x900, %esp            # the handler pushes here
        mov     $0x1000, %ebp
        FAULTS  mov (%ebp), %al
        mov     $SEL_DATA, %edx
        mov     %edx, %ss
        mov     %esi, %esp
        FAULTS  mov %fs:0x1000, %al
        movzbl  %bl, %ebx
        END
