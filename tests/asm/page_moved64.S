/*
 * A program's code under seven linear addresses in turn, as a library is in as many processes: what it finds out about where it stands, and
 * its data, are always those of the mapping it runs in.
 */
//= mem32[0x500]=0 mem32[0x504]=105 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0 rbp=0x2a
#include "user64.inc"

#define CODE  0x30000           /* where `piece` is copied to, and its data behind it */
#define PDPT2 0x40000
#define PD2   0x41000
#define PT2   0x42000
#define BASE  0x8000000000
#define PAGES 3                 /* from one mapping to the next */

        /* rbx: its own address; rdx: a return address; rcx: its count, and rsi where that is. Crosses no page. */
piece:  lea     piece(%rip), %rbx
        call    2f
back:   incl    piece + 0x1000(%rip)
        mov     piece + 0x1000(%rip), %ecx
        lea     piece + 0x1000(%rip), %rsi
        test    %ecx, %ecx
        jz      back
        ret
2:      mov     (%rsp), %rdx
        ret
piece_end:

test:
        movl    $PDPT2 + 7, PML4 + 8
        movl    $PD2 + 7, PDPT2
        movl    $PT2 + 7, PD2
        mov     $PT2, %edi
        mov     $7, %ecx
1:      movl    $CODE + 7, (%rdi)
        movl    $CODE + 0x1000 + 7, 8(%rdi)
        add     $8 * PAGES, %edi
        loop    1b
        mov     $piece, %esi
        mov     $CODE, %edi
        mov     $piece_end - piece, %ecx
        rep     movsb
        movl    $0, CODE + 0x1000
        xor     %ebp, %ebp
        PROGRAM
        mov     $3, %r14d
round:  mov     $BASE, %r12
        mov     $7, %r13d
place:  inc     %ebp
        call    *%r12
        SAME(%rbx, %r12)
        lea     back - piece(%r12), %r15
        SAME(%rdx, %r15)
        SAME(%rcx, %rbp)
        lea     0x1000(%r12), %r15
        SAME(%rsi, %r15)
        call    *%r12           # again, from the jump cache
        inc     %ebp
        SAME(%rcx, %rbp)
        add     $0x1000 * PAGES, %r12
        dec     %r13d
        jnz     place
        dec     %r14d
        jnz     round
        END_USER
