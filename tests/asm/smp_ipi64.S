/*
 * What one vCPU does to another by IPIs: it wakes it from HLT, interrupts it in a loop that looks at nothing, at both levels and with interrupts
 * off where that is an NMI's right, stops it by INIT wherever it is, and starts it again.
 */
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=6 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS 2
#include "smp64.inc"

#define WAKES   0x20000         /* the other's: interrupts that it took, */
#define NMIS    0x20008
#define WHERE   0x20010         /* and where the last found it */
#define SPINS   0x20040         /* rounds */
#define STARTS  0x20048         /* how often it was started */
#define MODE    0x20080         /* the first's: what the other does, */
#define HALT    0
#define SPIN    1
#define SPIN_CLI 2
#define SPIN_USER 3
#define VECTOR  0x41
#define TIMES   100
#define STARTED 20

other:
        lock incq STARTS
        OTHER_TSS
        mov     MODE, %eax
        cmp     $SPIN, %eax
        je      other_mode
        ja      no_interrupts

halt:   cli                             # the wake-up between look and HLT is not lost
        cmpl    $HALT, MODE
        jne     other_mode
        sti
        hlt
        jmp     halt
other_mode:
        sti
        cmpl    $SPIN_USER, MODE
        je      user
        jmp     spin
no_interrupts:
        cli
spin:   mov     $1, %eax                # nothing of it needs the engine
1:      lock xadd %rax, SPINS
        mov     $1, %eax
        jmp     1b
user:   pushq   $SEL_UDATA
        pushq   $USTACK
        pushq   $0x202
        pushq   $SEL_UCODE64
        pushq   $spin
        iretq

on_ipi: push    %rax
        lock incq WAKES
        mov     $APIC, %eax
        movl    $0, APIC_EOI(%rax)
        mov     MODE, %eax
        cmp     $SPIN_USER, %eax
        jne     1f
        testb   $3, 16(%rsp)
        jnz     1f
        movq    $user, 8(%rsp)          # from the loop at CPL 0 to the one at CPL 3
1:      pop     %rax
        iretq

on_nmi: lock incq NMIS
        iretq

/* ---- the first ---- */

        .macro  IPI kind
        mov     $1, %edx
        mov     $\kind, %eax
        call    send_to
        .endm

/* Each interrupt is sent when the one before has been taken. */
        .macro  INTERRUPTS kind, count
        mov     $TIMES, %ebp
1:      mov     \count, %r14
        inc     %r14
        IPI     \kind
        WAIT    cmp %r14, \count
        dec     %ebp
        jnz     1b
        .endm

/* It goes on where it was. */
        .macro  SPINNING
        mov     SPINS, %rdx
2:      pause
        cmp     SPINS, %rdx
        je      2b
        .endm

first:
        GATE    VECTOR, on_ipi
        GATE    2, on_nmi
        WAIT    cmpq $1, STARTS

        INTERRUPTS IPI_FIXED|VECTOR, WAKES      # in HLT
        SAME(WAKES, $TIMES)
        movl    $SPIN, MODE
        INTERRUPTS IPI_FIXED|VECTOR, WAKES      # in a loop
        SPINNING
        SAME(WAKES, $(2*TIMES))
        INTERRUPTS IPI_NMI, NMIS
        movl    $SPIN_USER, MODE
        INTERRUPTS IPI_FIXED|VECTOR, WAKES
        SPINNING
        INTERRUPTS IPI_NMI, NMIS
        SAME(NMIS, $(2*TIMES))
        movl    $SPIN_CLI, MODE

        mov     $STARTED, %r15d         # INIT at CPL 3, then in the loop with interrupts on and off
        mov     $1, %r13d
1:      IPI     IPI_INIT
        IPI     IPI_START
        inc     %r13
        WAIT    cmp %r13, STARTS
        mov     %r15d, %eax
        and     $1, %eax
        add     $1, %eax
        mov     %eax, MODE
        SPINNING
        dec     %r15d
        jnz     1b
        movl    $SPIN_CLI, MODE
        IPI     IPI_INIT
        IPI     IPI_START
        inc     %r13
        WAIT    cmp %r13, STARTS
        SAME(STARTS, $(STARTED+2))

        INTERRUPTS IPI_NMI, NMIS
        mov     WAKES, %r12
        IPI     IPI_FIXED|VECTOR        # waits, and is forgotten in INIT
        SPINNING
        SAME(WAKES, %r12)
        movl    $SPIN, MODE
        IPI     IPI_INIT
        IPI     IPI_START
        inc     %r13
        WAIT    cmp %r13, STARTS
        SPINNING
        SAME(WAKES, %r12)
        FINISH
