/* SYSENTER and SYSEXIT */
//= rax=0x2b rbx=0x33 rcx=0x18 rdx=0x8 rsi=0x9000 rdi=0x9780
#include "prot32.inc"

test:
        # SYSENTER takes CS from the MSR, SS is the next; SYSEXIT CS + 16 and CS + 24: so a set of its own in the GDT
        mov     gdt + 0x08, %eax
        mov     gdt + 0x0c, %edx
        mov     %eax, gdt + 0x60
        mov     %edx, gdt + 0x64
        mov     gdt + 0x10, %eax
        mov     gdt + 0x14, %edx
        mov     %eax, gdt + 0x68
        mov     %edx, gdt + 0x6c
        mov     gdt + 0x28, %eax
        mov     gdt + 0x2c, %edx
        mov     %eax, gdt + 0x70
        mov     %edx, gdt + 0x74
        mov     gdt + 0x30, %eax
        mov     gdt + 0x34, %edx
        mov     %eax, gdt + 0x78
        mov     %edx, gdt + 0x7c
        mov     $0x174, %ecx
        mov     $0x60, %eax
        xor     %edx, %edx
        wrmsr
        inc     %ecx
        mov     $STACK, %eax
        wrmsr
        inc     %ecx
        mov     $1f, %eax
        wrmsr
        TO_USER
        mov     $USTACK - 0x80, %esp
        sysenter
1:      mov     %esp, %esi
        mov     %cs, %edi
        mov     $USTACK - 0x80, %ecx
        mov     $2f, %edx
        sysexit
2:      mov     %esp, %edi
        mov     %cs, %eax
        mov     %ss, %ebx
        sub     $0x48, %eax             # 0x73 and 0x7b
        sub     $0x48, %ebx
        mov     $0x18, %ecx
        mov     $0x8, %edx
        END_USER
