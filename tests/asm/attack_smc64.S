/*
 * Code that changes itself: every kind of store to the very next instruction, to one behind the next page, through another address,
 * by the kernel; and generators of code, which rewrite what they call, thousands of times.
 */
//= mem32[0x500]=0 mem32[0x504]=650 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define PAGE  0x30000
#define ALIAS 0x34000           /* PAGE and the next one again */

/*
 * A store to rdi changes the constant of the instruction right behind it, five times. The value is in eax, and with NOPs behind it in
 * rax, xmm0, st0 (times), and at `bytes`, to which rsi points.
 */
#define PATCHES(...) PATCHES_ __LINE__, __VA_ARGS__
        .macro  PATCHES_ line, store:vararg
        movl    $5, rounds
980:    mov     $981f + 1, %edi
        call    new_value
        \store
981:    mov     $0x11111111, %edx
        .fill   12, 1, 0x90
        mov     saved_sp, %rsp
        SAME_   \line, %rdx, value
        decl    rounds
        jnz     980b
        .endm

new_value:
        addl    $0x01030507, value
        mov     value, %eax
        mov     %rax, %rcx
        movabs  $0x9090909000000000, %rdx
        or      %rdx, %rax
        mov     %rax, bytes
        mov     $bytes, %esi
        movdqu  bytes, %xmm0
        fninit
        fildll  bytes
        pop     %rcx
        mov     %rsp, saved_sp
        push    %rcx
        mov     $1, %ecx
        ret

        .balign 16
bytes:  .quad   0, 0x9090909090909090
value:  .quad   0x10203040
saved_sp: .quad 0
rounds: .long   0

/* Stores that are more than one instruction. */
        .macro  BY_PIECES
        mov     %al, (%rdi)
        movb    %ah, 1(%rdi)
        shr     $16, %eax
        mov     %ax, 2(%rdi)
        .endm
        .macro  BY_LOCK_ADD
        movl    $0, (%rdi)
        lock add %eax, (%rdi)
        .endm
        .macro  BY_LOCK_OR
        movl    $0, (%rdi)
        lock or %rax, (%rdi)
        .endm
        .macro  BY_REP_MOVSB
        mov     $16, %ecx
        rep movsb
        .endm
        .macro  BY_REP_MOVSQ
        mov     $2, %ecx
        rep movsq
        .endm
        .macro  BY_PUSH
        lea     8(%rdi), %rsp
        push    %rax
        .endm
        .macro  BY_CMPXCHG
        mov     %eax, %edx
        mov     (%rdi), %eax
        lock cmpxchg %edx, (%rdi)
        .endm
        .macro  BY_POP
        push    %rax
        popq    (%rdi)
        .endm
        .macro  BY_MMX
        movdq2q %xmm0, %mm0
        movq    %mm0, (%rdi)
        emms
        .endm

test:
        PROGRAM
        mov     $2, %r15d
again:
        PATCHES(mov %eax, (%rdi))
        PATCHES(mov %rax, (%rdi))
        PATCHES(BY_PIECES)
        PATCHES(xchg %eax, (%rdi))
        PATCHES(BY_LOCK_ADD)
        PATCHES(BY_LOCK_OR)
        PATCHES(movnti %rax, (%rdi))
        PATCHES(movups %xmm0, (%rdi))
        PATCHES(movq %xmm0, (%rdi))
        PATCHES(movd %xmm0, (%rdi))
        PATCHES(movlps %xmm0, (%rdi))
        PATCHES(pextrd $0, %xmm0, (%rdi))
        PATCHES(fistpll (%rdi))
        PATCHES(movsl)
        PATCHES(movsq)
        PATCHES(stosl)
        PATCHES(rep stosq)
        PATCHES(BY_REP_MOVSB)
        PATCHES(BY_REP_MOVSQ)
        PATCHES(BY_PUSH)
        PATCHES(BY_CMPXCHG)
        PATCHES(BY_POP)
        PATCHES(BY_MMX)
        dec     %r15d
        jnz     again

        /* An instruction in two pages: each half, both at once, by both addresses and by the kernel. */
        movq    $PAGE + 7, PTE(ALIAS)
        movq    $PAGE + 0x1007, PTE(ALIAS + 0x1000)
        FLUSH_ALL
        mov     $1, %r15d               # bytes in the first page
1:      mov     $PAGE + 0x1000, %ebx
        sub     %r15, %rbx
        movw    $0xb848, (%rbx)         # movabs
        movb    $0xc3, 10(%rbx)
        mov     $6, %ebp
2:      imul    $0x01234567, %rbp, %r8
        mov     %r8, 2(%rbx)
        call    *%rbx
        SAME(%rax, %r8)
        incb    2(%rbx)                 # the first byte of the constant alone
        call    *%rbx
        mov     2(%rbx), %rdx
        SAME(%rax, %rdx)
        decb    ALIAS - PAGE + 9(%rbx)  # the last one, through the alias
        call    *%rbx
        mov     2(%rbx), %rdx
        SAME(%rax, %rdx)
        mov     %rbp, %r9
        IN_KERNEL xorq %r9, ALIAS - PAGE + 2(%rbx)
        call    *%rbx
        mov     ALIAS - PAGE + 2(%rbx), %rdx
        SAME(%rax, %rdx)
        dec     %ebp
        jnz     2b
        inc     %r15d
        cmp     $10, %r15d
        jb      1b

        /* A generator: code, and data beside it that the code writes; called at once. */
        mov     $PAGE + 0x200, %ebx
        mov     $4000, %ebp
        xor     %r8d, %r8d
1:      movb    $0xb8, (%rbx)           # mov eax, n; inc dword [data]; ret
        mov     %ebp, 1(%rbx)
        movb    $0xff, 5(%rbx)
        movw    $0x2504, 6(%rbx)
        movl    $PAGE + 0x280, 8(%rbx)
        movb    $0xc3, 12(%rbx)
        call    *%rbx
        add     %rax, %r8
        dec     %ebp
        jnz     1b
        SAME(%r8, $(4000*4001/2))
        SAME(PAGE + 0x280, $4000)

        /* The target of a direct jump and of a direct call, changed while both are hot. */
        mov     $1000, %ebp
        xor     %r8d, %r8d
        xor     %r9d, %r9d
1:      mov     $plus_one, %eax
        test    $1, %ebp
        jz      2f
        mov     $plus_ten, %eax
2:      lea     -5(%rax), %ecx
        sub     $the_call, %ecx
        mov     %ecx, the_call + 1
        sub     $the_jump - the_call, %ecx
        mov     %ecx, the_jump + 1
the_call: call  plus_one
        mov     $3f, %r10d
        push    %r10
the_jump: jmp   plus_one
3:      dec     %ebp
        jnz     1b
        SAME(%r8, $(2*500*11))

        /* A condition turned round, and a call removed and put back, by the code that is called. */
        mov     $1000, %ebp
        xor     %r8d, %r8d
1:      xorb    $1, the_jcc
        test    %ebp, %ebp
the_jcc: jz     2f
        add     $1, %r8d
2:      dec     %ebp
        jnz     1b
        SAME(%r8, $500)

        /* What a call pushes becomes the constant of the instruction that it calls. */
        mov     $200, %ebp
1:      mov     %rsp, %r12
        mov     $9f + 2 + 8, %esp
        call    9f
2:      jmp     1f
9:      movabs  $0x1122334455667788, %rax
        mov     %r12, %rsp
        SAME(%rax, $2b)
        movq    $0, 9b + 2
        dec     %ebp
        jnz     1b
1:
        END_USER

plus_one:
        inc     %r8d
        ret
plus_ten:
        add     $10, %r8d
        ret
