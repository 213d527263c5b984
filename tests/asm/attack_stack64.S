/*
 * A program whose RSP is no stack: the kernel's memory, a host's, no address at all. Exceptions, system calls and interrupts come to the
 * kernel's own stack and go back to that RSP; only what really touches the stack faults, with exactly that address.
 */
//- qemu: the timer is the box's own
//= mem32[0x500]=0 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define TIMER  0xe0
#define VECTOR 0x20
#define TAKEN  (BUF + 16)
#define ROUNDS 20000

        .macro  BAD address, vector, error
        .quad   \address
        .long   \vector, \error         # of a push; a pop without W
        .endm

        .balign 8
stacks: BAD     0x200080, 14, 7
        BAD     0xffff800000200080, 14, 7
        BAD     0x40000080, 14, 6
        BAD     0x7ffffff0, 14, 6
        BAD     0x555555554080, 14, 6
        BAD     0x7fffffffe080, 14, 6
        BAD     0xffffffff81000080, 14, 6
        BAD     0xfffffffffffffff0, 14, 6
        BAD     0x800000000080, 12, 0
        BAD     0xdeadbeefcafef00d, 12, 0
        BAD     0x8000000000000000, 12, 0
stacks_end:

/* With RSP from the table at rbp: runs code up to its own label `next`, where it must still be that. */
        .macro  ON_STACK error, at, insn:vararg
        CATCH   2f, \at
        mov     $test, %eax
        mov     %rsp, %r12
        mov     (%rbp), %rsp
1:      \insn
2:      mov     %rsp, %r13
        mov     %r12, %rsp
        SAME(%r13, (%rbp))
        SAME(REC, $1)
        SAME(REC_FIRST + 8, $0)
        .endm

/* It touches memory below or at RSP. */
        .macro  TOUCHES write, offset, insn:vararg
        ON_STACK 0, 1f, \insn
        mov     8(%rbp), %rdx
        cmp     $14, %edx
        jne     3f
        mov     $~((2 - \write) << 32), %r14
        and     %r14, %rdx
        mov     (%rbp), %r14
        add     $\offset, %r14
        SAME(REC_FIRST + 16, %r14)
3:      SAME(REC_FIRST, %rdx)
        .endm

/* It does not: that exception. */
        .macro  RAISES vector, at, insn:vararg
        ON_STACK 0, \at, \insn
        SAME(REC_FIRST, $\vector)
        .endm

test:
        mov     $on_timer, %eax
        mov     %ax, IDT + 16 * VECTOR
        mov     $200, %eax              # microseconds
        outl    %eax, $TIMER
        PROGRAM
        IN_KERNEL orl $0x200, 8(%rsp)   # of the flags to come back with: IF
        mov     $3, %r15d
again:  mov     $stacks, %ebp
each:
        TOUCHES 2, -8, push %rax
        TOUCHES 2, -8, push $1
        TOUCHES 2, -8, pushf
        TOUCHES 2, -8, call test
        TOUCHES 2, -8, call *%rax
        TOUCHES 2, -2, pushw $1
        TOUCHES 0, 0, pop %rax
        TOUCHES 0, 0, popf
        TOUCHES 0, 0, ret
        TOUCHES 0, 0, ret $16
        TOUCHES 0, 0, lretq
        TOUCHES 0, 0, iretq
        TOUCHES 0, 0, mov (%rsp), %al
        TOUCHES 2, 0, movl $1, (%rsp)
        RAISES  3, 2f, int3
        RAISES  6, 1f, ud2
        xor     %ecx, %ecx
        RAISES  0, 1f, div %ecx
        /* A system call, and a loop that interrupts come to. */
        mov     %rsp, %r12
        mov     (%rbp), %rsp
        IN_KERNEL nop
        mov     %rsp, %r13
        mov     $ROUNDS, %r14d
        xor     %ebx, %ebx
1:      mov     %rsp, %rax
        cmp     (%rbp), %rax
        setne   %al
        or      %al, %bl
        dec     %r14d
        jnz     1b
        mov     %r12, %rsp
        SAME(%r13, (%rbp))
        SAME(%rbx, $0)
        add     $16, %ebp
        cmp     $stacks_end, %ebp
        jb      each
        dec     %r15d
        jnz     again
        mov     $1, %r15d
        cmpl    $5, TAKEN               # how many is up to the host
        jb      again
        END_USER

on_timer:
        incl    TAKEN
        iretq
