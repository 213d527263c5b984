/*
 * Code and data in one page, close together: stores beside code, into it, from one to the other, across the page's end, by string moves, through
 * an alias and by the kernel; code that turns to data and is code again. So many rounds that the page is taken for data in between.
 */
//= mem32[0x500]=0 mem32[0x504]=7600 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define PAGE   0x30000
#define ALIAS  0x34000          /* PAGE and the next one again */
#define COPY   0x38000

#define WITHIN (PAGE + 0x100)   /* begins a granule of 64 bytes: mov eax, n; ret */
#define ACROSS (PAGE + 0x23d)   /* its constant lies in two of them */
#define LEAVES (PAGE + 0xffd)   /* and here in two pages */
#define TURNS  (PAGE + 0x300)   /* is data now and then */
#define ROUNDS 200            /* so that no constant carries into its second byte */

/* There is a function at `at` that returns ebp + `plus`. */
#define RETURNS(at, plus) RETURNS_ __LINE__, at, plus
        .macro  RETURNS_ line, at, plus
        lea     \plus(%rbp), %r8d
        mov     $\at, %edi
        call    *%rdi
        SAME_   \line, %rax, %r8
        .endm

        .macro  MAKE at
        movb    $0xb8, \at
        mov     %ebp, \at + 1
        movb    $0xc3, \at + 5
        .endm

        .macro  STORE reg, at:vararg
        mov     $\at, %edi
        mov     \reg, (%rdi)
        .endm

test:
        PROGRAM
        movq    $PAGE + 7, PTE(ALIAS)
        movq    $PAGE + 0x1007, PTE(ALIAS + 0x1000)
        FLUSH_ALL
        mov     $ROUNDS, %ebp
again:
        MAKE    WITHIN
        MAKE    ACROSS
        MAKE    LEAVES
        MAKE    TURNS
        RETURNS(WITHIN, 0)
        RETURNS(ACROSS, 0)
        RETURNS(LEAVES, 0)
        RETURNS(TURNS, 0)

        /* Data: in the granule of the code, in the one before, in the one behind, and beyond. */
        mov     %rbp, WITHIN + 6
        mov     %rbp, WITHIN - 8
        mov     %rbp, WITHIN + 0x40
        mov     %rbp, ACROSS - 9
        mov     %rbp, ACROSS + 6
        mov     $100, %ecx
1:      mov     %rcx, PAGE + 0x800
        dec     %ecx
        jnz     1b
        RETURNS(WITHIN, 0)
        RETURNS(ACROSS, 0)
        SAME(WITHIN + 6, %rbp)
        SAME(PAGE + 0x800, $1)

        STORE   %bpl, WITHIN + 7
        STORE   %bp, WITHIN - 2
        STORE   %rbp, WITHIN - 16
        STORE   %r11, WITHIN + 0x40
        mov     WITHIN - 16, %rax
        SAME(%rax, %rbp)
        SAME(WITHIN + 0x40, %r11)
        RETURNS(WITHIN, 0)

        /* The code alone: all of the constant, and a byte in either granule; from the data before it as well. */
        lea     2(%rbp), %r10d
        STORE   %r10d, WITHIN + 1
        RETURNS(WITHIN, 2)
        STORE   %bpl, WITHIN + 1
        RETURNS(WITHIN, 0)
        STORE   %r10b, ACROSS + 1
        RETURNS(ACROSS, 2)
        STORE   %bpl, ACROSS + 4
        STORE   %r10w, ACROSS + 3
        STORE   %ebp, ACROSS + 1
        RETURNS(ACROSS, 0)
        mov     WITHIN - 6, %rax
        movabs  $0x0100000000000000, %rdx
        add     %rdx, %rax
        STORE   %rax, WITHIN - 6
        RETURNS(WITHIN, 1)
        addl    $2, ACROSS + 1
        RETURNS(ACROSS, 2)
        addb    $1, ACROSS + 1
        RETURNS(ACROSS, 3)
        addb    $1, ACROSS + 4
        RETURNS(ACROSS, 0x1000003)

        /* From data into code: the last byte is the first of the constant. */
        mov     WITHIN - 6, %rax
        movabs  $0x0300000000000000, %rdx
        add     %rdx, %rax
        mov     %rax, WITHIN - 6
        RETURNS(WITHIN, 4)
        movdqu  WITHIN - 8, %xmm0
        mov     $1, %eax
        movq    %rax, %xmm1
        pslldq  $10, %xmm1              # adds one to the constant's second byte
        paddb   %xmm1, %xmm0
        movups  %xmm0, WITHIN - 8
        RETURNS(WITHIN, 260)

        /* Across the page's end: either side, and both. */
        addb    $1, LEAVES + 1
        RETURNS(LEAVES, 1)
        addb    $1, LEAVES + 4
        RETURNS(LEAVES, 0x1000001)
        addl    $0x10101, LEAVES + 1
        RETURNS(LEAVES, 0x1010102)
        mov     %ebp, LEAVES + 6        # data behind it
        mov     %ebp, LEAVES - 4
        RETURNS(LEAVES, 0x1010102)

        /* All of it by a string move, from a copy where the constants are others; then by string stores. */
        mov     $PAGE, %esi
        mov     $COPY, %edi
        mov     $0x1100, %ecx
        rep movsb
        lea     5(%rbp), %eax
        mov     %eax, COPY + WITHIN - PAGE + 1
        mov     %eax, COPY + ACROSS - PAGE + 1
        mov     %eax, COPY + LEAVES - PAGE + 1
        mov     $COPY + 0xf0, %esi
        mov     $PAGE + 0xf0, %edi
        mov     $0x1010, %ecx
        rep movsb
        RETURNS(WITHIN, 5)
        RETURNS(ACROSS, 5)
        RETURNS(LEAVES, 5)
        RETURNS(TURNS, 0)
        lea     6(%rbp), %eax
        mov     $WITHIN + 1, %edi
        stosl
        mov     $LEAVES + 1, %edi
        stosl
        RETURNS(WITHIN, 6)
        RETURNS(LEAVES, 6)

        /* Through the alias, and by the kernel. */
        mov     %rbp, ALIAS - PAGE + WITHIN + 8
        addl    $1, ALIAS - PAGE + WITHIN + 1
        RETURNS(WITHIN, 7)
        addl    $1, ALIAS - PAGE + LEAVES + 1
        RETURNS(LEAVES, 7)
        IN_KERNEL addl $1, ALIAS - PAGE + ACROSS + 1
        RETURNS(ACROSS, 6)
        IN_KERNEL mov %rbp, WITHIN + 16
        RETURNS(WITHIN, 7)

        /* Data where code was: nobody's business until it is code again. */
        mov     $16, %ecx
1:      mov     %rcx, TURNS - 8(, %rcx, 8)
        dec     %ecx
        jnz     1b
        RETURNS(WITHIN, 7)
        MAKE    TURNS
        addl    $9, TURNS + 1
        RETURNS(TURNS, 9)
        addl    $1, WITHIN + 1
        RETURNS(WITHIN, 8)

        dec     %ebp
        jnz     again
        END_USER
