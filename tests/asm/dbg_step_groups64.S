/*
 * Single steps through one instruction of each group that only a kernel runs, or that leaves for one, at both levels: a trap behind each, with
 * BS alone in DR6 and RIP at what comes next, and none where the SDM has none (Vol. 3B 18.3.1.4). First without TF, so that an
 * engine that translates has done so, then with it, twice. What programs run is stepped through by tests/oracle.
 */
//- qemu: TCG holds up the traps behind STI and LSS, and loses PAUSE's
//= mem32[0x500]=0 mem32[0x504]=269 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define TRACE  BUF              /* where the traps were, a dword each */
#define COUNT  (BUF+0x1000)     /* how many */
#define WRONG  (BUF+0x1008)     /* how many with something else in DR6 */
#define SCRAP  (BUF+0x1100)
#define ABSENT 0x50000

        .macro  EXPECT address
        .pushsection .data
        .long   \address
        .popsection
        .endm

/* A trap behind it; a trap at `target`; none. */
        .macro  T insn:vararg
        \insn
981:    EXPECT  981b
        .endm
        .macro  J target, insn:vararg
        \insn
        EXPECT  \target
        .endm
        .macro  NONE insn:vararg
        \insn
        .endm
/* An instruction that comes again, called 981: a trap behind each of so many turns. */
        .macro  REPEATS n, insn:vararg
981:    \insn
982:    .rept   \n - 1
        EXPECT  981b
        .endr
        EXPECT  982b
        .endm

        .pushsection .data
        .balign 8
far_stack: .long 0, SEL_DATA
far_code: .long far_target, SEL_CODE64
table:  .skip   16
expected:
        .popsection

/* r13: RFLAGS to run it with */
steps:  mov     %rsp, %r12
        push    %r13
        popfq                           # no trap: TF was clear
        T       nop

        /* flags, the stack, control flow */
        T       pushfq
        T       popfq
        T       sti
        T       cli
        T       std
        T       cld
        T       mov %ss, %eax
        NONE    mov %eax, %ss           # holds it up for one
        T       inc %ecx
        T       mov %eax, %es
        T       push %fs
        T       pop %fs
        T       lss far_stack, %edx
        T       enter $16, $0
        T       leave
        J       1f, call 1f
1:      T       pop %rax
        T       push $2f
        J       2f, ret
2:      T       push $SEL_CODE64
        T       push $2f
        J       2f, lretq
2:      J       far_target, ljmpl *far_code
far_target:
        T       mov $2, %ecx
        REPEATS 2, loop 981b
        J       2f, jrcxz 2f
2:      T       jnc 2f
2:      T       lea 2f, %rax
        J       2f, jmp *%rax
2:      T       mov $3, %ecx

        /* strings, step by step */
        T       mov $SCRAP, %esi
        T       mov $SCRAP + 0x100, %edi
        REPEATS 3, rep movsb
        T       rep movsb               # no turn at all
        T       mov $5, %ecx
        REPEATS 5, rep stosq
        T       mov $2, %ecx
        REPEATS 2, repe cmpsb
        T       mov $3, %ecx
        T       xor %eax, %eax
        REPEATS 1, repne scasb          # the first one it is
        T       movsq

        /* ports */
        T       in $0x84, %al
        T       out %al, $0x84
        T       mov $0x84, %edx
        T       in %dx, %eax
        T       out %ax, %dx
        T       mov $SCRAP, %edi
        T       mov $SCRAP, %esi
        T       insb
        T       outsb
        T       mov $3, %ecx
        REPEATS 3, rep insb
        T       mov $2, %ecx
        REPEATS 2, rep outsl

        /* the system's */
        T       xor %eax, %eax
        T       cpuid
        T       rdtsc
        T       mov $0xc0000080, %ecx
        T       rdmsr
        T       wrmsr
        T       mov %cr0, %rax
        T       mov %rax, %cr0
        T       mov %cr3, %rax
        T       mov %rax, %cr3
        T       mov %cr4, %rax
        T       mov %rax, %cr4
        T       mov %cr8, %rax
        T       mov %rax, %cr8
        T       mov %dr7, %rax
        T       mov %rax, %dr7
        T       mov %rax, %dr0
        T       invlpg SCRAP
        T       wbinvd
        T       clts
        T       smsw %eax
        T       lmsw %ax
        T       sgdt table
        T       lgdt table
        T       sidt table
        T       lidt table
        T       sldt %eax
        T       lldt %ax
        T       str %eax
        T       verr %ax
        T       lar %eax, %edx
        T       swapgs
        T       swapgs
        T       fxsave SCRAP
        T       fninit
        T       fwait
        T       movups %xmm0, SCRAP
        T       lock incl SCRAP
        T       mfence
        T       pause

        /* what leaves and comes back: the way back holds the trap up for one */
        NONE    int $0x40
        T       nop
        NONE    int3
        T       nop
        NONE    ud2
        T       inc %eax
        T       movb $1, ABSENT         # faults, and is then run
        T       push $2
        T       popfq                   # the last one
        NONE    nop
        NONE    push %r13
        NONE    popfq
        T       cpuid
        T       mov %rsp, %rax
        T       push $SEL_DATA
        T       push %rax
        T       push $2
        T       push $SEL_CODE64
        T       push $2f
        J       2f, iretq               # the same by IRET
2:      NONE    cpuid
        NONE    mov %rsp, %rax
        NONE    push $SEL_UDATA
        NONE    push $USTACK
        NONE    push %r13
        NONE    push $SEL_UCODE64
        NONE    push $2f
        NONE    iretq

        /* at CPL 3 */
2:      T       cpuid
        T       nop
        NONE    int $0x40
        T       nop
        NONE    int3
        T       rdtsc
        NONE    ud2
        T       inc %eax
        T       syscall                 # without TF in the kernel: the trap is SYSRET's
        T       nop
        NONE    int $0x41
        T       nop
        J       stepped_syscall, syscall # with it
        EXPECT  stepped_sysret
        EXPECT  back
back:   T       nop
        NONE    int $0x42

masked_syscall:
        nop
        sysretq
stepped_syscall:
        nop
stepped_sysret:
        sysretq

on_int: iretq
on_ud2: addq    $2, (%rsp)
        iretq
on_pf:  add     $8, %rsp
        lock orq $1, PTE(ABSENT)
        invlpg  ABSENT
        iretq
on_unmask:                              # SYSCALL leaves TF from now on
        mov     $stepped_syscall, %eax
        xor     %r10d, %r10d
        call    set_syscall
        iretq
on_end: mov     %r12, %rsp
        mov     $SEL_DATA, %eax
        mov     %eax, %ss
        ret

on_db:  push    %rax
        push    %rbx
        mov     %dr6, %rax
        and     $0xe00f, %eax
        cmp     $0x4000, %eax
        je      1f
        incl    WRONG
1:      xor     %eax, %eax
        mov     %rax, %dr6
        mov     COUNT, %eax
        mov     16(%rsp), %ebx
        mov     %ebx, TRACE(,%rax,4)
        inc     %eax
        and     $0x3ff, %eax
        mov     %eax, COUNT
        pop     %rbx
        pop     %rax
        iretq

/* rax: where it goes, r10: which flags it clears. Clobbers rcx, rdx. */
set_syscall:
        mov     $0xc0000082, %ecx
        xor     %edx, %edx
        wrmsr
        mov     %r10, %rax
        mov     $0xc0000084, %ecx
        wrmsr
        ret

/* So many traps, and where they are expected. */
        .macro  RUN flags, count
        mov     $SCRAP, %edi
        mov     $0x40, %ecx
        xor     %eax, %eax
        rep     stosq
        mov     %eax, COUNT
        lock btrq $0, PTE(ABSENT)
        invlpg  ABSENT
        mov     $masked_syscall, %eax
        mov     $0x40700, %r10d
        call    set_syscall
        mov     $\flags, %r13d
        call    steps
        SAME(COUNT, $\count)
        .endm

test:
        GATE    1, on_db
        GATE    3, on_int
        GATE    6, on_ud2
        GATE    14, on_pf
        GATE    0x40, on_int
        GATE    0x41, on_unmask
        GATE    0x42, on_end
        movb    $0xee, IDT + 16 * 3 + 5
        movb    $0xee, IDT + 16 * 0x40 + 5
        movb    $0xee, IDT + 16 * 0x41 + 5
        movb    $0xee, IDT + 16 * 0x42 + 5
        mov     $0xc0000081, %ecx
        xor     %eax, %eax
        mov     $SEL_UCODE32 << 16 | SEL_CODE64, %edx
        wrmsr
        RUN     2, 0
        RUN     2, 0
        mov     $2, %ebp
1:      RUN     0x102, TRAPS
        xor     %r14d, %r14d
2:      mov     TRACE(,%r14,4), %eax
        mov     expected(,%r14,4), %edx
        SAME(%rax, %rdx)
        inc     %r14d
        cmp     $TRAPS, %r14d
        jb      2b
        dec     %ebp
        jnz     1b
        SAME(WRONG, $0)
        END

        .data
expected_end:
        .set    TRAPS, (expected_end - expected) / 4
