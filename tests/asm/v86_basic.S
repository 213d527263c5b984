/* Virtual-8086 mode: segments, privileged instructions, IOPL, and back through an exception */
//= n_exc=0 rax=0x1234 rbx=0x20000 rcx=0x2000 rdx=0
#include "prot32.inc"

test:
        movw    $1f, IDT + 13 * 8
        movl    $0x000ab00f, %eax       # hlt is what faults
        push    $0x2000                 # GS
        push    $0x2000                 # FS
        push    $0x2000                 # DS
        push    $0x2000                 # ES
        push    $0                      # SS
        push    $USTACK
        push    $0x20002                # VM, IOPL 0
        push    $0                      # CS
        push    $2f
        xor     %eax, %eax
        iretl
1:      add     $4, %esp
        mov     8(%esp), %ebx
        and     $0x20000, %ebx
        movzwl  24(%esp), %ecx          # DS as the program had it
        mov     %ds, %edx               # null here
        mov     $SEL_DATA, %eax
        mov     %eax, %ds
        movzwl  0x20010, %eax
        END
        .code16
2:      movw    $0x1234, %ds:0x10
        hlt
