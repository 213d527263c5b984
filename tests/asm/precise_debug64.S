/*
 * Breakpoints and single steps in a loop that is hot by then: each stops where it says, with registers and flags of just that place, and
 * all of it goes on as if nothing had been.
 */
//= mem32[0x500]=0 mem32[0x504]=279 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define DR7_CODE0  0x401                /* DR0, execution */
#define DR7_WRITE1 0x900404             /* DR1, a write of eight bytes */
#define DR7_RW1    0xb00404             /* the same, and reads */

/* A hundred rounds; it looks at memory, and one round goes another way. */
hot:    xor     %ecx, %ecx
        xor     %r8d, %r8d
p0:     inc     %ecx
        add     $3, %r8
        cmp     $57, %ecx
p1:     je      special
back:   mov     %r8, BUF(,%rcx,8)
p2:     cmp     $100, %ecx
p3:     jb      p0
        ret
special:
        lea     1(%r8), %r9
        jmp     back

/* Where, and RCX, R8 and status flags there. */
        .balign 8
points: .quad   p0, 0, 0, 0x44
        .quad   p1, 1, 3, 0x91
        .quad   back, 1, 3, 0x91
        .quad   p2, 1, 3, 0x91
        .quad   p3, 1, 3, 0x91
        .quad   special, 57, 171, 0x44
points_end:
frame:  .quad   0, SEL_CODE64, 0, 0, 0  # for IRETQ
steps:  .quad   0

/* The loop as it is without a debugger. */
        .macro  RUN_HOT
        call    hot
        SAME(%rcx, $100)
        SAME(%r8, $300)
        SAME(%r9, $172)
        .endm

test:
        mov     $3, %r15d
again:
        RUN_HOT
        RUN_HOT
        mov     $points, %ebp
1:      mov     (%rbp), %rax
        call    code_breakpoint
        RUN_HOT
        add     $32, %ebp
        cmp     $points_end, %ebp
        jb      1b
        mov     $DR7_WRITE1, %r14d
        call    data_breakpoint
        RUN_HOT
        mov     $DR7_RW1, %r14d
        call    data_breakpoint
        RUN_HOT
        call    single_steps
        RUN_HOT
        dec     %r15d
        jnz     again
        END

/* A fault, in front of the instruction at rax. */
code_breakpoint:
        mov     %rax, %dr0
        xor     %edx, %edx
        mov     %rdx, %dr6
        mov     $DR7_CODE0, %edx
        mov     %rdx, %dr7
        CATCH   1f, 0
        mov     %rax, fault_at
        mov     %rsp, %r12
        call    hot
1:      mov     %r12, %rsp
        SAME(%rcx, 8(%rbp))
        SAME(%r8, 16(%rbp))
        mov     %dr6, %rdx
        and     $0xe00f, %edx
        SAME(%rdx, $1)
        call    off
        mov     REC_FIRST + 24, %edx
        and     $0x8d5, %edx
        SAME(%rdx, 24(%rbp))
        CAUGHT(1, 0, none)
        ret

/* A trap, behind the store to one element. */
data_breakpoint:
        mov     $BUF + 64 * 8, %eax
        mov     %rax, %dr1
        xor     %edx, %edx
        mov     %rdx, %dr6
        mov     %r14, %dr7
        CATCH   1f, p2
        mov     %rsp, %r12
        call    hot
1:      mov     %r12, %rsp
        SAME(%rcx, $64)
        SAME(%r8, $192)
        mov     %dr6, %rdx
        and     $0xe00f, %edx
        SAME(%rdx, $2)
        call    off
        CAUGHT(1, 0, none)
        SAME(BUF+64*8, $192)
        ret

off:    mov     $0x400, %edx
        mov     %rdx, %dr7
        ret

/* Every instruction of it, one by one: the handler clears TF, so each is entered by IRETQ. */
single_steps:
        movq    $0, steps
        movq    $0, fault_at
        movq    $stepped, recover
        mov     %rsp, %r12
        pushq   $stepped_all
        movq    $hot, frame
        movq    $0x102, frame + 16
        jmp     step
stepped:
        incl    steps
        pushq   REC_FIRST + 24
        popq    frame + 16
        orl     $0x100, frame + 16
        pushq   REC_FIRST + 8
        popq    frame
        cmpq    $stepped_all, frame
        je      stepped_all
step:   movl    $0, REC
        mov     %rsp, frame + 24
        mov     $frame, %esp
        iretq
stepped_all:
        mov     %r12, %rsp
        movq    $0, recover
        SAME(%rcx, $100)
        SAME(%r8, $300)
        SAME(%r9, $172)
        SAME(steps, $(2+100*7+2+1))
        ret
