/*
 * The guest's kernel: enters the sequence at privilege level 3, and is there for any exception. Position-independent. It enters the
 * same sequence several times, so that the engine meets it with its caches filled.
 */
#include "seq_layout.h"

#include "guest_kernel.h"

        .section .rodata
        .globl  guest_kernel, guest_kernel_start
        .type   guest_kernel, @object
        .balign 4096
guest_kernel:
image:
        .set    vector, 0
        .rept   256
        .balign GUEST_STUB_SIZE
        .ifeq   (vector - 8) * (vector - 10) * (vector - 11) * (vector - 12) * (vector - 13) * (vector - 14) * (vector - 17) * (vector - 21)
        .else
        push    $0                      /* no error code: one like it */
        .endif
        push    $vector
        jmp     on_exception
        .set    vector, vector + 1
        .endr

on_exception:
        mov     %rax, image + GUEST_OUT + 0x00(%rip)
        mov     %rcx, image + GUEST_OUT + 0x08(%rip)
        mov     %rdx, image + GUEST_OUT + 0x10(%rip)
        mov     %rbx, image + GUEST_OUT + 0x18(%rip)
        mov     %rbp, image + GUEST_OUT + 0x28(%rip)
        mov     %rsi, image + GUEST_OUT + 0x30(%rip)
        mov     %rdi, image + GUEST_OUT + 0x38(%rip)
        mov     %r8,  image + GUEST_OUT + 0x40(%rip)
        mov     %r9,  image + GUEST_OUT + 0x48(%rip)
        mov     %r10, image + GUEST_OUT + 0x50(%rip)
        mov     %r11, image + GUEST_OUT + 0x58(%rip)
        mov     %r12, image + GUEST_OUT + 0x60(%rip)
        mov     %r13, image + GUEST_OUT + 0x68(%rip)
        mov     %r14, image + GUEST_OUT + 0x70(%rip)
        mov     %r15, image + GUEST_OUT + 0x78(%rip)
        .set    at, GUEST_OUT_FRAME
        .rept   6
        popq    image + at(%rip)
        .set    at, at + 8
        .endr
        mov     %cr2, %rax
        mov     %rax, image + GUEST_OUT_CR2(%rip)
        mov     %dr6, %rax
        mov     %rax, image + GUEST_OUT_DR6(%rip)
        xor     %eax, %eax
        mov     %rax, %dr6
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 image + GUEST_OUT_XSAVE(%rip)
        in      $GUEST_PORT, %al
        cmp     $GUEST_AGAIN, %al
        jb      end
        je      enter
        cmp     $GUEST_INVLPG, %al
        jne     guest_kernel_start
        invlpg  SEQ_DATA
        invlpg  SEQ_DATA + 0x1000
        invlpg  SEQ_STACK
        invlpg  SEQ_CODE + 0x1000
        jmp     enter

guest_kernel_start:
        mov     %cr3, %rax
        mov     %rax, %cr3
enter:
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 image + GUEST_IN_XSAVE(%rip)
        mov     image + GUEST_IN_DS(%rip), %ds
        mov     image + GUEST_IN_DS(%rip), %es
        lea     image + GUEST_IN_RIP(%rip), %rsp
        mov     image + GUEST_IN + 0x00(%rip), %rax
        mov     image + GUEST_IN + 0x08(%rip), %rcx
        mov     image + GUEST_IN + 0x10(%rip), %rdx
        mov     image + GUEST_IN + 0x18(%rip), %rbx
        mov     image + GUEST_IN + 0x28(%rip), %rbp
        mov     image + GUEST_IN + 0x30(%rip), %rsi
        mov     image + GUEST_IN + 0x38(%rip), %rdi
        mov     image + GUEST_IN + 0x40(%rip), %r8
        mov     image + GUEST_IN + 0x48(%rip), %r9
        mov     image + GUEST_IN + 0x50(%rip), %r10
        mov     image + GUEST_IN + 0x58(%rip), %r11
        mov     image + GUEST_IN + 0x60(%rip), %r12
        mov     image + GUEST_IN + 0x68(%rip), %r13
        mov     image + GUEST_IN + 0x70(%rip), %r14
        mov     image + GUEST_IN + 0x78(%rip), %r15
        iretq

end:
        hlt
        .org    image + GUEST_IMAGE
        .size   guest_kernel, . - guest_kernel

        .section .note.GNU-stack, "", @progbits
