/*
 * In which order two vCPUs see each other's stores (SDM Vol. 3A 9.2). A store and a later load may change places, but for a fence or a
 * locked instruction between them; nothing else may, whatever the stores are made of.
 */
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=8 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS 2
#include "smp64.inc"

#define N      0x1000           /* tries in a round, a byte each */
#define ROUNDS 32
#define X      0x20000
#define Y      0x21000
#define SAW_Y  0x22000          /* of the first vCPU */
#define SAW_X  0x23000

#define DATA   0x30000
#define FLAG   0x30040
#define DATA2  0x30080
#define STALE  0x300c0
#define SEEN   0x300c8
#define LAST   400000
#define AT     0x30100          /* at which try each is, a line each */
#define PATIENCE 200            /* looks whether the other is there too: that it is makes a race likely, no more */

/* Whether both may come first: each sets its own, and looks at the other's behind the fence. The vCPU's number is in ebp. */
        .macro  DEKKER fence:vararg
        mov     $ROUNDS, %r15d
1:      call    rendezvous
        call    clear
        call    rendezvous
        xor     %esi, %esi
2:      \fence
        call    rendezvous
        call    count_both
        dec     %r15d
        jnz     1b
        .endm

/* r8: its own, r9: the other's, r10: what it saw there. */
        .macro  STORE_AND_LOOK fence:vararg
3:      call    abreast
        movb    $1, (%r8,%rsi)
        \fence
        mov     (%r9,%rsi), %al
        mov     %al, (%r10,%rsi)
        inc     %esi
        cmp     $N, %esi
        jb      3b
        .endm
        .macro  XCHG_AND_LOOK
3:      call    abreast
        mov     $1, %al
        xchg    %al, (%r8,%rsi)
        mov     (%r9,%rsi), %al
        mov     %al, (%r10,%rsi)
        inc     %esi
        cmp     $N, %esi
        jb      3b
        .endm

abreast:
        mov     %ebp, %edx
        shl     $6, %edx
        mov     %esi, AT(%rdx)
        xor     $64, %edx
        mov     $PATIENCE, %ecx
1:      cmp     %esi, AT(%rdx)
        jae     2f
        dec     %ecx
        jnz     1b
2:      ret

clear:  movl    $0, AT
        movl    $0, AT + 64
        cmp     $0, %ebp
        jne     1f
        mov     $X, %edi
        mov     $N * 4 / 8, %ecx
        xor     %eax, %eax
        rep     stosq
1:      ret

/* On vCPU 0: how often neither saw the other. */
count_both:
        cmp     $0, %ebp
        jne     9f
        xor     %esi, %esi
1:      mov     SAW_X(%rsi), %al
        or      SAW_Y(%rsi), %al
        jnz     2f
        incq    STALE
2:      inc     %esi
        cmp     $N, %esi
        jb      1b
9:      ret

dekkers:
        DEKKER  STORE_AND_LOOK mfence
        DEKKER  STORE_AND_LOOK lock orb $0, -1(%rsp)
        DEKKER  STORE_AND_LOOK lock xadd %ebx, SEEN + 8(,%rbp,8)
        DEKKER  XCHG_AND_LOOK
        ret

/* The first stores a number to DATA, and then to FLAG, in all ways; the other never sees a FLAG that is ahead of DATA, nor any go back. */
        .macro  PUBLISH store:vararg
        call    rendezvous
        mov     $1, %ebx
        mov     $DATA, %r12d
        mov     $FLAG, %r13d
1:      \store
        inc     %ebx
        cmp     $LAST, %ebx
        jbe     1b
        call    rendezvous
        call    rendezvous              # the other has looked
        SAME(STALE, $0)
        movq    $0, DATA
        movq    $0, DATA2
        movq    $0, FLAG
        .endm

by_moves:
        mov     %rbx, (%r12)
        mov     %rbx, (%r13)
        ret
by_stack:
        mov     %rsp, %r14
        lea     8(%r12), %rsp
        push    %rbx
        lea     8(%r13), %rsp
        push    %rbx
        mov     %r14, %rsp
        ret
by_strings:
        mov     %rbx, %rax
        mov     $1, %ecx
        mov     %r12, %rdi
        rep     stosq
        mov     %r13, %rdi
        stosq
        ret
by_vectors:
        movq    %rbx, %xmm0
        punpcklqdq %xmm0, %xmm0
        movaps  %xmm0, (%r12)
        movlps  %xmm0, (%r13)
        ret
around_caches:
        movnti  %rbx, (%r12)
        sfence
        mov     %rbx, (%r13)
        ret
by_locks:
        lock incq (%r12)
        lock xadd %rdx, DATA2
        incq    (%r13)
        ret
by_x87: mov     %rbx, DATA2 + 8
        fildll  DATA2 + 8
        fistpll (%r12)
        mov     %ebx, (%r13)
        ret

publisher:
        PUBLISH call by_moves
        PUBLISH call by_stack
        PUBLISH call by_strings
        PUBLISH call by_vectors
        PUBLISH call around_caches
        PUBLISH call by_locks
        PUBLISH call by_x87
        ret

reader: mov     $7, %r15d
1:      call    rendezvous
        xor     %esi, %esi              # what it has seen last
2:      mov     FLAG, %rax
        mov     DATA, %rdx
        cmp     %rax, %rdx
        jb      8f
        cmp     %rsi, %rax
        jb      8f
3:      mov     %rax, %rsi
        cmp     $LAST, %eax
        jb      2b
        call    rendezvous
        call    rendezvous
        dec     %r15d
        jnz     1b
        ret
8:      incq    STALE
        jmp     3b

first:
        xor     %ebp, %ebp
        mov     $X, %r8d
        mov     $Y, %r9d
        mov     $SAW_Y, %r10d
        call    dekkers
        SAME(STALE, $0)
        call    publisher
        FINISH

other:
        mov     %edi, %ebp
        mov     $Y, %r8d
        mov     $X, %r9d
        mov     $SAW_X, %r10d
        call    dekkers
        call    reader
        ret
