/*
 * One vCPU changes code that the other executes all the time. Without a word, where the change is one store, either version may run; behind
 * a handshake or an interrupt in which the other serialises (SDM Vol. 3A 9.1.3) the old one does no more, and nothing ever runs that is
 * neither.
 */
//- qemu: it may translate the old bytes again while a store to them is under way, and keep that
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=692 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS 2
#include "smp64.inc"

/* Written by the first vCPU */
#define VERSION  0x20000        /* of the code: goes up when a change is complete */
#define FUNCTION 0x20008        /* what the other calls; 0: no more */
#define BY_IPI   0x20010        /* the other shall not look at VERSION by itself */
/* by the other */
#define BEGUN    0x20040        /* calls */
#define ENDED    0x20048        /* the number of the last that has come back, */
#define RESULT   0x20050        /* and what it said */
#define ACK      0x20058        /* the version behind which it has serialised */
#define WRONG    0x20060        /* how often it was said what no version says */
#define LEVEL    0x20070        /* at which it is by now */

#define PAGE   0x30000
#define ALIAS  0x34000          /* PAGE and the next one again */
#define VECTOR 0x41
#define NUMBER 0x1000           /* what says its version, says this and the version */
#define TIMES  16

/* ---- what is changed: one aligned qword each ---- */

        .balign 16
number: mov     $NUMBER, %eax
        ret

        .balign 16
jump:   .byte   0xe9                    # jmp one
        .long   one - jump - 5

        .balign 16
looped: xor     %ecx, %ecx              # all is near, and nothing looked up
1:      inc     %ecx
        jmp     the_call
        .balign 16
the_call:
        call    one
        cmp     $20, %ecx
        jb      1b
        ret

        .balign 16
turned: xor     %eax, %eax
        jmp     the_jcc
        .balign 16
the_jcc:
        je      one
        jmp     two

        .balign 16
one:    mov     $1, %eax
        ret
        .balign 16
two:    mov     $2, %eax
        ret
three:  mov     $3, %eax
        ret

/* ---- the other vCPU ---- */

other:
        OTHER_TSS
        sti
        call    calls
        pushq   $SEL_UDATA
        pushq   $USTACK
        pushq   $0x202
        pushq   $SEL_UCODE64
        pushq   $1f
        iretq
1:      movl    $3, LEVEL
        call    calls
1:      pause
        jmp     1b

calls:  pause
        cmpq    $0, FUNCTION
        je      calls
        xor     %r12d, %r12d            # the version that it knows
1:      mov     FUNCTION, %rbx
        test    %rbx, %rbx
        jz      9f
        lock incq BEGUN
        mov     BEGUN, %r13
        call    *%rbx
        mov     %rax, RESULT
        mov     %r13, ENDED
        lea     -1(%rax), %rcx
        cmp     $2, %rcx                # 1 to 3, or a version that is or is about to be
        jbe     2f
        sub     $NUMBER, %rax
        mov     VERSION, %rcx
        inc     %rcx
        cmp     %rcx, %rax
        jbe     2f
        lock incq WRONG
2:      cmpl    $0, BY_IPI
        jne     1b
        mov     VERSION, %rcx
        cmp     %rcx, %r12
        je      1b
        mov     %rcx, %r12
        xor     %eax, %eax
        cpuid                           # serialises
        mov     %r12, ACK
        jmp     1b
9:      ret

on_ipi: push    %rax
        push    %rbx
        mov     VERSION, %rax
        mov     $APIC, %ebx
        movl    $0, APIC_EOI(%rbx)
        mov     %rax, ACK
        pop     %rbx
        pop     %rax
        iretq                           # serialises

/* In place of the instruction of which INT3 is the first byte. */
on_int3:
        movq    $three, (%rsp)
        iretq

/* ---- the first ---- */

/* rax: what the function says behind the other's serialising. Clobbers rbx, rcx and rdx. */
next_version:
        lock incq VERSION
serialise:
        cmpl    $0, BY_IPI
        je      1f
        movq    $0, ACK
        mov     $1, %edx
        mov     $IPI_FIXED | VECTOR, %eax
        call    send_to
1:      mov     VERSION, %rdx
        WAIT    cmp %rdx, ACK
        mov     BEGUN, %rdx             # this one may have begun before
1:      pause
        cmp     %rdx, ENDED
        jbe     1b
        mov     RESULT, %rax
        ret

/* rdx: 1 or 2, and rcx: the function that says it, by the version that comes next. */
which:  mov     VERSION, %rdx
        inc     %edx
        and     $1, %edx
        mov     $one, %ecx
        jz      1f
        mov     $two, %ecx
1:      inc     %edx
        ret

/* A function is changed TIMES times by `change`, which gets the next version in r8 and leaves in rdx what it will say. */
        .macro  CHANGES function, change
        movq    $\function, FUNCTION
        mov     $TIMES, %ebp
1:      mov     VERSION, %r8
        inc     %r8
        call    \change
        mov     %rdx, %r14
        call    next_version
        SAME(%rax, %r14)
        dec     %ebp
        jnz     1b
        .endm

by_store:
        lea     NUMBER(%r8), %edx
        mov     %edx, number + 1
        ret

by_cmpxchg:
        lea     NUMBER(%r8), %r9d
        mov     number, %eax
        mov     number + 4, %edx
        mov     %rdx, %rcx
        mov     %rax, %rbx
        mov     %r9d, %r10d             # the constant's bytes 0 to 2, then 3
        shl     $8, %r10d
        mov     %bl, %r10b
        mov     %r10d, %ebx
        mov     %r9d, %r10d
        shr     $24, %r10d
        mov     %r10b, %cl
        lock cmpxchg8b number
        mov     %r9, %rdx
        ret

/* By the alias of the page that it was copied to. */
by_alias:
        lea     NUMBER(%r8), %edx
        movd    %edx, %xmm0
        movd    %xmm0, ALIAS + 1
        ret

to_jump:
        call    which
        sub     $jump + 5, %ecx
        mov     %ecx, jump + 1
        ret

to_call:
        call    which
        sub     $the_call + 5, %ecx
        xchg    %ecx, the_call + 1
        ret

to_jcc: call    which
        lea     0x73(%rdx), %eax        # JE or JNE
        mov     %al, the_jcc
        ret

/* A jump's target in Linux's way, at an address at which it may lie anyhow: rdi; and by r10, another for the same. */
        .macro  POKES at
        mov     $\at, %edi
        lea     ALIAS - PAGE(%rdi), %r10
        movb    $0xe9, (%r10)
        mov     $one, %ecx
        sub     %edi, %ecx
        sub     $5, %ecx
        mov     %ecx, 1(%r10)
        call    next_version
        mov     %rdi, FUNCTION
        mov     $TIMES / 4, %ebp
1:      call    which
        mov     %rdx, %r14
        mov     %ecx, %r15d
        movb    $0xcc, (%r10)
        call    next_version
        SAME(%rax, $3)
        sub     %edi, %r15d
        sub     $5, %r15d
        mov     %r15b, 1(%r10)          # byte by byte
        shr     $8, %r15d
        mov     %r15b, 2(%r10)
        shr     $8, %r15d
        mov     %r15w, 3(%r10)
        call    next_version
        SAME(%rax, $3)
        movb    $0xe9, (%r10)
        call    next_version
        SAME(%rax, %r14)
        dec     %ebp
        jnz     1b
        movq    $one, FUNCTION
        call    next_version
        .endm

/* A generator of code: new functions where others were, when nobody is in them any more. */
generate:
        movq    $one, FUNCTION
        call    next_version
        SAME(%rax, $1)
        mov     $PAGE + 0x800, %edi
        mov     %rbp, %rcx              # so many ADDs of 3 to NUMBER
        movb    $0xb8, (%rdi)
        movl    $NUMBER, 1(%rdi)
        add     $5, %edi
1:      movl    $0x9003c083, (%rdi)     # add $3, %eax; nop
        add     $4, %rdi
        dec     %ecx
        jnz     1b
        movb    $0x2d, (%rdi)           # sub $(3 * n - 1), %eax
        lea     -1(%rbp,%rbp,2), %eax
        mov     %eax, 1(%rdi)
        movb    $0xc3, 5(%rdi)
        movq    $PAGE + 0x800, FUNCTION
        call    next_version
        SAME(%rax, $(NUMBER+1))
        ret

all:
        CHANGES number, by_store
        CHANGES number, by_cmpxchg
        CHANGES PAGE, by_alias
        CHANGES jump, to_jump
        CHANGES looped, to_call
        CHANGES turned, to_jcc
        POKES   (PAGE + 0x100)
        POKES   (PAGE + 0x17d)
        POKES   (PAGE + 0xffd)
        mov     $20, %ebp
1:      call    generate
        dec     %ebp
        jnz     1b
        ret

/* By both ways of waiting for the other. */
both:   movl    $0, BY_IPI
        movq    $one, FUNCTION
        call    next_version
        SAME(%rax, $1)
        call    all
        movl    $1, BY_IPI
        call    all
        movq    $0, FUNCTION
        SAME(WRONG, $0)
        ret

first:
        GATE    3, on_int3
        movb    $0xee, IDT + 16 * 3 + 5
        GATE    VECTOR, on_ipi
        mov     $number, %esi
        mov     $PAGE, %edi
        mov     $8, %ecx
        rep     movsb
        movq    $PAGE + 7, PTE(ALIAS)
        movq    $PAGE + 0x1007, PTE(ALIAS + 0x1000)
        mov     %cr3, %rax
        mov     %rax, %cr3
        call    both
        WAIT    cmpl $3, LEVEL
        call    both                    # and once more at CPL 3
        FINISH
