/* SYSCALL and SYSRET: RCX, R11, SFMASK, selectors; SYSRET at CPL 0 only */
//- qemu: TCG loses CF when SYSCALL masks the flags
//= n_exc=1 exc0=6:0 rbx=0x18 rcx=0x3b rdx=0x33 rsi&0x401=1 rdi&0x401=0x401 rax=0x20
#include "long64.inc"

test:
        mov     $0xc0000081, %ecx       # STAR
        xor     %eax, %eax
        mov     $0x002b0018, %edx
        wrmsr
        inc     %ecx
        mov     $entry64, %eax
        xor     %edx, %edx
        wrmsr
        mov     $0xc0000084, %ecx       # SFMASK: DF
        mov     $0x400, %eax
        wrmsr
        TO_USER
        std
        stc
        syscall
        pushf
        pop     %rdi
        cld
        mov     %ss, %edx
        mov     %cs, %ecx
        mov     %r8d, %ebx
        mov     %r9d, %eax
        mov     %r10d, %esi
        mov     %rcx, %r12
        mov     %rax, %r13
        FAULTS  ud2
        END_USER
entry64:
        pushf                           # on the program's stack: no switch
        pop     %r10
        mov     %cs, %r8d
        mov     %ss, %r9d
        sysretq
