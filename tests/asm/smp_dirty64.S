/*
 * Accessed and dirty bits are set by one vCPU while the other changes the same entry by locked instructions (SDM Vol. 3A 4.8): no change of
 * either is lost; and a page whose entry was taken away clean has not been written, and is not any more.
 */
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=3 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS 2
#include "smp64.inc"

#define P      0x50000
#define FRAME  0x40000          /* mapped one to one too */
#define SHOOT  0x20000          /* the first vCPU's: INVLPG P is wanted */
#define SHOT   0x20040          /* the other's: it was done */
#define LOOKS  0x20048          /* accesses */
#define CLEAN  0x20080          /* how often the page was found clean, */
#define DIRTY  0x20088          /* and dirty */
#define WRONG  0x20090
#define READY  0x200c0
#define COUNT  52               /* eleven bits of an entry that nobody else uses */
#define TIMES  2000
#define A      0x20
#define D      0x40

/* The other reads, and now and then writes; what it is told to forget it forgets. Where nothing is mapped it comes again. */
other:  mov     %rsp, %r13
        WAIT    cmpl $1, READY
        xor     %r14d, %r14d
look:   lock incq LOOKS
        inc     %r14d
        mov     P, %rax
        test    $7, %r14d
        jnz     1f
store:  incq    P
1:      mov     SHOOT, %rdx
        cmp     SHOT, %rdx
        je      look
        test    %rdx, %rdx
        js      2f
        invlpg  P
        mov     %rdx, SHOT
        jmp     look
2:      ret
absent: mov     %r13, %rsp
        movl    $0, REC                 # none is checked
        jmp     1b

shoot:  mov     SHOOT, %rdx
        inc     %rdx
        mov     %rdx, SHOOT
        WAIT    cmp %rdx, SHOT
        ret

first:
        movq    $absent, recover
        movq    $FRAME + 7, PTE(P)
        movl    $1, READY

        mov     $TIMES, %ebp            # counts in the entry while its bits are cleared and set again
1:      movabs  $1 << COUNT, %rax
        lock xadd %rax, PTE(P)
        lock andq $~(A | D), PTE(P)
        call    shoot
        dec     %ebp
        jnz     1b
        mov     PTE(P), %rax
        shr     $COUNT, %rax
        SAME(%rax, $TIMES)

        mov     $TIMES, %ebp
1:      movq    $FRAME + 7, PTE(P)
        call    shoot
        mov     LOOKS, %rdx             # some accesses
        add     $2, %rdx
2:      pause
        cmp     %rdx, LOOKS
        jb      2b
        mov     FRAME, %r8
        xor     %eax, %eax
        xchg    %rax, PTE(P)
        mov     FRAME, %r9
        mov     %rax, %r10
        call    shoot
        mov     FRAME, %r11
        test    $D, %r10b
        jnz     3f
        incq    CLEAN
        cmp     %r11, %r9
        je      4f
        incq    WRONG
        jmp     4f
3:      incq    DIRTY
4:      dec     %ebp
        jnz     1b
        movq    $-1, SHOOT
        SAME(WRONG, $0)
        mov     CLEAN, %rax
        add     DIRTY, %rax
        SAME(%rax, $TIMES)
        FINISH
