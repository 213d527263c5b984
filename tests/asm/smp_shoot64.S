/*
 * Page tables that one vCPU changes and both use: when the other has done what the change asks for (SDM Vol. 3A 4.10.4, 4.10.5), it translates
 * as they say now, be it data or the very code that it executes.
 */
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=1880 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS 2
#include "smp64.inc"

/* The first vCPU's questions, and the other's answers. */
#define ASKED    0x20000
#define WHAT     0x20008        /* a function */
#define ANSWERED 0x20040
#define ANSWER   0x20048
/* The other's rounds through code that changes, */
#define ROUND    0x20080
#define SAID     0x20088        /* what the code said in the last one */
#define IPIS     0x20090
#define STOP     0x200c0

#define P       0x50000         /* linear addresses: data, */
#define C       0x51000         /* code, two pages of it, */
#define BIG     0x40200000      /* and under a page table that changes */
#define FRAME_A 0x40000
#define FRAME_B 0x41000
#define CODE_1  0x42000         /* the first page of code */
#define CODE_A  0x43000         /* and two for the second */
#define CODE_B  0x44000
#define PD_BIG  0x45000
#define PT_A    0x46000
#define PT_B    0x47000
#define VECTOR  0x41
#define GLOBAL  0x100
#define TIMES   40

/* ---- what the other is asked to do ---- */

flush_p:
        invlpg  P
        ret
flush_all:
        mov     %cr3, %rax
        mov     %rax, %cr3
        ret
flush_global:
        mov     %cr4, %rax
        xor     $0x80, %eax
        mov     %rax, %cr4
        xor     $0x80, %eax
        mov     %rax, %cr4
        ret
flush_code:
        invlpg  C
        invlpg  C + 0x1000
        ret
read_p: mov     P, %rax
        ret
add_p:  xor     %eax, %eax
a_store:
        addq    $16, P
        ret
read_big:
        mov     BIG, %eax
        mov     BIG + 0x1000, %edx
        shl     $32, %rdx
        or      %rdx, %rax
        ret
call_code:
        mov     $1, %ecx
        jmp     C

/* The code of two pages: as many rounds as ecx says, between them; what it says is in eax. */
code_1: jmp     . + 0x1000
        dec     %ecx
        jnz     code_1
        ret
code_1_end:
code_2: mov     $0xa, %eax              # or 0xb
        .byte   0xe9                    # to behind the jump
        .long   5 - (0x1000 + 10)
code_2_end:

/* Runs it for ever, and says what it says each time. */
run_code:
        mov     $3, %ecx
        mov     $C, %ebx
        call    *%rbx
        mov     %rax, SAID
        lock incq ROUND
        cmpl    $0, STOP
        je      run_code
        ret

/* The same at CPL 3. */
run_code_user:
        mov     %rsp, kernel_sp
        pushq   $SEL_UDATA
        pushq   $USTACK
        pushq   $0x202
        pushq   $SEL_UCODE64
        pushq   $1f
        iretq
1:      call    run_code
        int     $0x40
on_back:
        mov     kernel_sp, %rsp
        mov     $SEL_DATA, %eax
        mov     %eax, %ss
        sti
        ret

on_ipi: invlpg  C + 0x1000
        push    %rax
        mov     $APIC, %eax
        movl    $0, APIC_EOI(%rax)
        pop     %rax
        lock incq IPIS
        iretq

        .balign 8
kernel_sp: .quad 0

other:
        OTHER_TSS
        sti
        xor     %r12d, %r12d
        mov     %rsp, %r13
1:      pause
        cmp     %r12, ASKED
        je      1b
        mov     ASKED, %r12
        mov     WHAT, %rbx
        call    *%rbx
answer: mov     %rax, ANSWER
        mov     %r12, ANSWERED
        jmp     1b
faulted:
        mov     %r13, %rsp
        sti
        mov     $-1, %rax
        jmp     answer

/* ---- the first ---- */

        .macro  ASK function
        movq    $\function, WHAT
        call    ask
        .endm

ask:    lock incq ASKED
wait:   mov     ASKED, %rdx
        WAIT    cmp %rdx, ANSWERED
        mov     ANSWER, %rax
        ret

/* The page's address leads to one frame and then to another. */
        .macro  MOVES flags, flush
        mov     $TIMES, %ebp
1:      movq    $FRAME_A + 7 + \flags, PTE(P)
        ASK     \flush
        ASK     read_p
        SAME(%rax, $0xa)
        ASK     read_p
        SAME(%rax, $0xa)
        movq    $FRAME_B + 7 + \flags, PTE(P)
        ASK     \flush
        ASK     read_p
        SAME(%rax, $0xb)
        dec     %ebp
        jnz     1b
        .endm

data:   MOVES   0, flush_p
        MOVES   0, flush_all
        MOVES   GLOBAL, flush_p
        MOVES   GLOBAL, flush_global

        mov     $TIMES, %ebp            # a page table in place of another
1:      movq    $PT_A + 7, PD_BIG + 8
        ASK     flush_all
        ASK     read_big
        movabs  $0xb0000000a, %rdx
        SAME(%rax, %rdx)
        movq    $PT_B + 7, PD_BIG + 8
        ASK     flush_all
        ASK     read_big
        movabs  $0xa0000000b, %rdx
        SAME(%rax, %rdx)
        dec     %ebp
        jnz     1b
        ret

/* Rights that are taken away, while all is in the other's TLB. */
rights: mov     $TIMES, %ebp
        movq    $FRAME_A + 7, PTE(P)
        ASK     flush_p
1:      mov     FRAME_A, %rbx
        ASK     add_p
        SAME(%rax, $0)
        add     $16, %rbx
        SAME(FRAME_A, %rbx)
        CATCH   faulted, a_store
        lock btrq $1, PTE(P)            # read only
        ASK     flush_p
        ASK     add_p
        SAME(%rax, $-1)
        CAUGHT(14, 3, P)
        SAME(FRAME_A, %rbx)
        ASK     read_p
        SAME(%rax, %rbx)
        lock btrq $0, PTE(P)            # absent
        ASK     flush_p
        CATCH   faulted, read_p
        ASK     read_p
        CAUGHT(14, 0, P)
        lock orq $3, PTE(P)
        ASK     flush_p
        CATCH   faulted, C
        ASK     call_code
        SAME(%rax, $0xa)
        lock btsq $63, PTE(C)           # not executable
        ASK     flush_code
        ASK     call_code
        SAME(%rax, $-1)
        CAUGHT(14, 0x11, C)
        lock btrq $63, PTE(C)
        ASK     flush_code
        ASK     call_code
        SAME(%rax, $0xa)
        CATCH   faulted, (C+0x1000)
        lock btsq $63, PTE(C + 0x1000)  # the page to which it jumps
        ASK     flush_code
        ASK     call_code
        SAME(%rax, $-1)
        CAUGHT(14, 0x11, C+0x1000)
        lock btrq $63, PTE(C + 0x1000)
        ASK     flush_code
        dec     %ebp
        jnz     1b
        ret

/* Code that the other executes goes to another frame: until it is interrupted either may run, and from then on the new one. */
        .macro  REMAPS flags, function
        movq    $CODE_1 + 7 + \flags, PTE(C)
        movq    $CODE_A + 7 + \flags, PTE(C + 0x1000)
        ASK     flush_code
        movl    $0, STOP
        movq    $\function, WHAT
        lock incq ASKED
        mov     $TIMES, %ebp
        mov     $0xa, %r14d
1:      mov     ROUND, %rdx
        call    next_round
        SAME(%rax, %r14)
        mov     IPIS, %r15
        xorl    $(CODE_A ^ CODE_B), PTE(C + 0x1000)
        xor     $1, %r14d
        mov     $1, %edx
        mov     $IPI_FIXED | VECTOR, %eax
        call    send_to
        inc     %r15
        WAIT    cmp %r15, IPIS
        mov     ROUND, %rdx
        call    next_round
        SAME(%rax, %r14)
        dec     %ebp
        jnz     1b
        movl    $1, STOP
        call    wait
        .endm

/* What was said in a round that began after the one in rdx was over. */
next_round:
        inc     %rdx
1:      pause
        cmp     ROUND, %rdx
        jae     1b
        mov     SAID, %rax
        ret

first:
        GATE    VECTOR, on_ipi
        GATE    0x40, on_back
        movb    $0xee, IDT + 16 * 0x40 + 5
        movq    $0xa, FRAME_A
        movq    $0xb, FRAME_B
        mov     $code_1, %esi
        mov     $CODE_1, %edi
        mov     $code_1_end - code_1, %ecx
        rep     movsb
        mov     $code_2, %esi
        mov     $CODE_A, %edi
        mov     $code_2_end - code_2, %ecx
        rep     movsb
        mov     $code_2, %esi
        mov     $CODE_B, %edi
        mov     $code_2_end - code_2, %ecx
        rep     movsb
        movb    $0xb, CODE_B + 1
        movq    $PD_BIG + 7, PDPT + 8
        movq    $FRAME_A + 7, PT_A
        movq    $FRAME_B + 7, PT_A + 8
        movq    $FRAME_B + 7, PT_B
        movq    $FRAME_A + 7, PT_B + 8
        movq    $CODE_1 + 7, PTE(C)
        movq    $CODE_A + 7, PTE(C + 0x1000)
        ASK     flush_global            # and CR4.PGE is set
        ASK     flush_code
        call    data
        call    rights
        REMAPS  0, run_code
        REMAPS  GLOBAL, run_code
        REMAPS  0, run_code_user
        REMAPS  GLOBAL, run_code_user
        FINISH
