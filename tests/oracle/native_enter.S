/* Enters and leaves a sequence. All addresses are absolute and below 2 GiB: no register is free. */
#include "seq_layout.h"

#include "native_int.h"

        .text
        .globl  native_enter
        .type   native_enter, @function
native_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, NATIVE_CTL_HOST
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 NATIVE_CTL_XSAVE
        rdfsbase %rax
        mov     %rax, NATIVE_CTL_HOST_FS
        mov     $SEQ_FS_BASE, %eax
        wrfsbase %rax
        mov     $SEQ_GS_BASE, %eax
        wrgsbase %rax
        pushq   NATIVE_CTL_RFLAGS
        popfq
        mov     NATIVE_CTL_DS, %ds
        mov     NATIVE_CTL_DS, %es
        mov     NATIVE_CTL_GPR + 0x00, %rax
        mov     NATIVE_CTL_GPR + 0x08, %rcx
        mov     NATIVE_CTL_GPR + 0x10, %rdx
        mov     NATIVE_CTL_GPR + 0x18, %rbx
        mov     NATIVE_CTL_GPR + 0x28, %rbp
        mov     NATIVE_CTL_GPR + 0x30, %rsi
        mov     NATIVE_CTL_GPR + 0x38, %rdi
        mov     NATIVE_CTL_GPR + 0x40, %r8
        mov     NATIVE_CTL_GPR + 0x48, %r9
        mov     NATIVE_CTL_GPR + 0x50, %r10
        mov     NATIVE_CTL_GPR + 0x58, %r11
        mov     NATIVE_CTL_GPR + 0x60, %r12
        mov     NATIVE_CTL_GPR + 0x68, %r13
        mov     NATIVE_CTL_GPR + 0x70, %r14
        mov     NATIVE_CTL_GPR + 0x78, %r15
        mov     NATIVE_CTL_GPR + 0x20, %rsp
        ljmpl   *NATIVE_CTL_FAR
        .size   native_enter, . - native_enter

        .globl  native_leave
        .type   native_leave, @function
native_leave:
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size   native_leave, . - native_leave

/* Flags that sequences may have set would raise exceptions in C (AC), and code there keeps things at FS. RSP is aligned here. */
        .globl  native_on_signal
        .type   native_on_signal, @function
native_on_signal:
        pushq   $2
        popfq
        mov     NATIVE_CTL_HOST_FS, %rax
        wrfsbase %rax
        sub     $8, %rsp
        call    native_fault
        add     $8, %rsp
        mov     NATIVE_CTL_BACK_FS, %rax
        wrfsbase %rax
        pushq   NATIVE_CTL_BACK_RFLAGS
        popfq
        ret
        .size   native_on_signal, . - native_on_signal

        .section .note.GNU-stack, "", @progbits
