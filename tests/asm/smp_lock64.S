/*
 * Four vCPUs change the same memory with locked instructions: nothing is lost, whether an operand lies well or across lines and pages. And
 * each has a part of its own beside the others' that it changes without: nothing of theirs is touched.
 */
//- cpus: 4
//= mem32[0x500]=0 mem32[0x504]=35 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS 4
#include "smp64.inc"

#define ROUNDS 20000
#define SPLITS 300              /* hosts may slow them down on purpose */
#define AT     BUF              /* a line each */
#define OWN    (BUF+0x1000)
#define WRONG  (BUF+0x1f00)
#define SPLIT  (BUF+0x2000)   /* and the page behind */

first:
        xor     %edi, %edi
        call    work
        SAME(AT+0*64, $(4*ROUNDS))
        SAME(AT+1*64, $(4*ROUNDS))
        SAME(AT+2*64, $(4*ROUNDS*3))
        SAME(AT+3*64, $(-4*ROUNDS&0xff))
        SAME(AT+4*64, $(4*ROUNDS*5&0xffff))
        SAME(AT+5*64, $(-4*ROUNDS*7))
        SAME(AT+6*64, $(4*ROUNDS))
        SAME(AT+7*64, $(4*ROUNDS))
        SAME(AT+8*64, $(4*ROUNDS))
        SAME(AT+8*64+8, $(-4*ROUNDS))
        SAME(AT+9*64, $(4*ROUNDS))
        SAME(AT+10*64, $0)
        SAME(AT+11*64, $(4*ROUNDS))
        SAME(AT+12*64, $0)
        SAME(AT+13*64, $(4*ROUNDS*2))
        SAME(AT+14*64, $0)
        SAME(AT+15*64, $0)
        SAME(AT+16*64, $0)
        SAME(AT+17*64, $(4*ROUNDS*2))
        xor     %ebx, %ebx
1:      mov     OWN + 8 * 64(,%rbx,8), %rax
        SAME(%rax, $ROUNDS)
        inc     %ebx
        cmp     $4, %ebx
        jb      1b
        SAME(OWN+7*64, $0)
        SAME(OWN+7*64+8, $0)
        SAME(WRONG, $0)
        mov     SPLIT + 0x3d, %eax
        SAME(%rax, $(4*SPLITS))
        SAME(SPLIT+0x7c, $(4*SPLITS))
        SAME(SPLIT+0xb9, $(4*SPLITS*3))
        mov     SPLIT + 0xff, %ax
        movzwl  %ax, %eax
        SAME(%rax, $(4*SPLITS))
        SAME(SPLIT+0x13c, $(4*SPLITS))
        mov     SPLIT + 0xffe, %eax
        SAME(%rax, $(4*SPLITS))
        SAME(SPLIT+0x1ffb, $(4*SPLITS))
        SAME(SPLIT+0x17d, $(4*SPLITS))
        SAME(SPLIT+0x1bc, $0)
        FINISH

other:
work:
        push    %rdi
        call    rendezvous
        mov     (%rsp), %rdi
        mov     $ROUNDS, %r15d
1:      call    shared
        call    own
        dec     %r15d
        jnz     1b
        mov     $SPLITS, %r15d
1:      call    split
        dec     %r15d
        jnz     1b
        call    rendezvous
        pop     %rdi
        ret

/* edi: the vCPU's number. Keeps it, and r15. */
shared:
        lock incl AT
        lock addq $1, AT + 1 * 64
        mov     $3, %eax
        lock xadd %rax, AT + 2 * 64
        lock decb AT + 3 * 64
        lock addw $5, AT + 4 * 64
        lock subq $7, AT + 5 * 64
        mov     AT + 6 * 64, %eax       # CMPXCHG
1:      lea     1(%rax), %ecx
        lock cmpxchg %ecx, AT + 6 * 64
        jne     1b
        mov     AT + 7 * 64, %eax       # CMPXCHG8B
        mov     AT + 7 * 64 + 4, %edx
1:      mov     %eax, %ebx
        mov     %edx, %ecx
        add     $1, %ebx
        adc     $0, %ecx
        lock cmpxchg8b AT + 7 * 64
        jne     1b
        mov     AT + 8 * 64, %rax       # CMPXCHG16B, perhaps with halves of two times
        mov     AT + 8 * 64 + 8, %rdx
1:      lea     1(%rax), %rbx
        lea     -1(%rdx), %rcx
        lock cmpxchg16b AT + 8 * 64
        jne     1b
        mov     $1, %eax                # locks made of XCHG, BTS and CMPXCHG, and a plain INC under each
1:      pause
        xchg    %eax, AT + 10 * 64
        test    %eax, %eax
        jnz     1b
        incq    AT + 9 * 64
        movl    $0, AT + 10 * 64
1:      pause
        lock btsl $37, AT + 12 * 64
        jc      1b
        incq    AT + 11 * 64
        lock btrl $37, AT + 12 * 64
1:      pause
        xor     %eax, %eax
        lea     1(%rdi), %ecx
        lock cmpxchg %cl, AT + 14 * 64
        jne     1b
        addq    $2, AT + 13 * 64
        lock andb $0, AT + 14 * 64
        lock btcq %rdi, AT + 15 * 64    # its own bit, an even number of times
        mov     $1, %eax
        mov     %edi, %ecx
        shl     %cl, %eax
        lock xor %eax, AT + 15 * 64
        test    %eax, AT + 15 * 64
        jz      1f
        lock xor %eax, AT + 15 * 64
        lock incl WRONG
1:      lock notq AT + 16 * 64
        stc
        lock adcq $0, AT + 17 * 64
        stc
        lock sbbq $-2, AT + 17 * 64
        ret

/* What is rewritten is what the instruction writes, no more. */
own:
        mov     %r15d, %eax
        mov     %al, OWN(%rdi)
        movb    %al, OWN + 64(%rdi,%rdi)
        mov     %ax, OWN + 2 * 64(,%rdi,2)
        incb    OWN + 3 * 64(%rdi)
        mov     %eax, OWN + 4 * 64(,%rdi,4)
        addq    $1, OWN + 8 * 64(,%rdi,8)
        mov     %edi, %esi
        imul    $3, %esi
        lea     OWN + 5 * 64(%rsi), %r8
        mov     %rdi, %r9
        mov     %r8, %rdi
        mov     $3, %ecx
        rep     stosb                   # three bytes
        mov     %r9, %rdi
        movd    %eax, %xmm0             # a dword of sixteen bytes
        pshufd  $0, %xmm0, %xmm0
        mov     %edi, %esi
        shl     $4, %esi
        movdqu  masks(%rsi), %xmm1
        mov     $OWN + 6 * 64, %edi
        maskmovdqu %xmm1, %xmm0
        mov     %r9, %rdi
        btcl    $7, OWN + 7 * 64(,%rdi,4)
        cmp     %al, OWN(%rdi)
        jne     wrong
        cmp     %al, OWN + 64(%rdi,%rdi)
        jne     wrong
        cmp     %ax, OWN + 2 * 64(,%rdi,2)
        jne     wrong
        lea     -1(%rax), %ecx
        add     OWN + 3 * 64(%rdi), %cl
        cmp     $ROUNDS & 0xff, %cl
        jne     wrong
        cmp     %eax, OWN + 4 * 64(,%rdi,4)
        jne     wrong
        cmp     %al, (%r8)
        jne     wrong
        cmp     %ax, OWN + 6 * 64(,%rdi,4)
        jne     wrong
        mov     %al, %ah
        cmp     %ax, 1(%r8)
        jne     wrong
        ret
wrong:  lock incl WRONG
        ret

        .balign 16
masks:  .long   -1, 0, 0, 0
        .long   0, -1, 0, 0
        .long   0, 0, -1, 0
        .long   0, 0, 0, -1

/* Across the ends of lines, and of a page. */
split:
        lock incl SPLIT + 0x3d
        lock incq SPLIT + 0x7c
        mov     $3, %eax
        lock xadd %rax, SPLIT + 0xb9
        lock incw SPLIT + 0xff
        mov     SPLIT + 0x13c, %rax
1:      lea     1(%rax), %rcx
        lock cmpxchg %rcx, SPLIT + 0x13c
        jne     1b
        lock addl $1, SPLIT + 0xffe
        mov     $1, %eax
        lock xadd %rax, SPLIT + 0x1ffb
        mov     SPLIT + 0x17d, %eax
        mov     SPLIT + 0x17d + 4, %edx
1:      mov     %eax, %ebx
        mov     %edx, %ecx
        add     $1, %ebx
        adc     $0, %ecx
        lock cmpxchg8b SPLIT + 0x17d
        jne     1b
        mov     $-1, %rax               # swapped in and out: what comes back is whole
        xchg    %rax, SPLIT + 0x1bc
        inc     %rax
        test    $~1, %rax
        jnz     wrong
        xor     %eax, %eax
        xchg    %rax, SPLIT + 0x1bc
        inc     %rax
        test    $~1, %rax
        jnz     wrong
        ret
