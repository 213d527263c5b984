/*
 * A fault in the middle of an instruction leaves everything as it was: read-modify-write of a page that may only be read, the second operand
 * of instructions that have two, stores across the end of what is there. The memory, RSP and the flags say so.
 */
//- qemu: for a read-modify-write QEMU reports the read
//= mem32[0x500]=0 mem32[0x504]=2140 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define RO    0x30000           /* may only be read */
#define LAST  0x32000           /* behind it nothing */
#define GONE  0x33000
#define EDGE  (GONE - 4)

/* #PF with that error code at that address; flags CF, PF, AF, SF before it and in the frame, operands and RSP as before. */
#define FAILS(error, cr2, ...) FAILS_ __LINE__, error, cr2, __VA_ARGS__
        .macro  FAILS_ line, error, cr2, insn:vararg
        mov     $0x1122334455667788, %rax
        mov     $0x99aabbccddeeff00, %rdx
        mov     %rsp, %r12
        xor     %r8d, %r8d
        movl    $0, REC
        movq    $992f, recover
        movq    $991f, fault_at
        sub     $1, %r8d
991:    \insn
        xor     %r8d, %r8d
992:    mov     %rsp, %r13
        mov     %r12, %rsp
        CAUGHT_ \line, 14, \error, \cr2
        SAME_   \line, %r12, %r13
        push    REC_FIRST + 24
        andl    $0x8d5, (%rsp)
        pop     %r8
        SAME_   \line, %r8, $0x95
        call    unchanged
        SAME_   \line, %r8, $0
        .endm

test:
        movabs  $0x0f1e2d3c4b5a6978, %rax
        mov     %rax, RO + 0x80
        mov     %rax, RO + 0x88
        mov     %rax, GONE - 8
        mov     %rax, GONE - 16
        movq    $RO + 5, PTE(RO)
        movq    $0, PTE(GONE)
        PROGRAM
        FLUSH_ALL
        mov     $4, %r15d
again:
        mov     $RO + 0x80, %ebx
        .irp    op, add, or, adc, sbb, and, sub, xor, xadd, xchg
        FAILS_  __LINE__, 7, RO + 0x80, \op %rax, (%rbx)
        .endr
        .irp    op, add, or, adc, sbb, and, sub, xor, xadd, cmpxchg
        FAILS_  __LINE__, 7, RO + 0x80, lock \op %rax, (%rbx)
        .endr
        .irp    op, bts, btr, btc
        FAILS_  __LINE__, 7, RO + 0x80, \op\()q $3, (%rbx)
        FAILS_  __LINE__, 7, RO + 0x80, lock \op\()l $31, (%rbx)
        .endr
        .irp    op, inc, dec, not, neg
        FAILS_  __LINE__, 7, RO + 0x80, \op\()b (%rbx)
        FAILS_  __LINE__, 7, RO + 0x80, lock \op\()q (%rbx)
        .endr
        mov     $5, %ecx
        .irp    op, rol, ror, rcl, rcr, shl, shr, sar
        FAILS_  __LINE__, 7, RO + 0x80, \op\()w %cl, (%rbx)
        FAILS_  __LINE__, 7, RO + 0x80, \op\()q $3, (%rbx)
        .endr
        FAILS(7, RO + 0x80, shld $3, %rax, (%rbx))
        FAILS(7, RO + 0x80, cmpxchg8b (%rbx))
        FAILS(7, RO + 0x80, lock cmpxchg16b (%rbx))
        FAILS(7, RO + 0x80, setc (%rbx))

        /* Two operands in memory: the one behind is bad, and nothing has moved. */
        mov     $RO + 0x80, %edi
        mov     $BUF, %esi
        FAILS(7, RO + 0x80, movsq)
        FAILS(7, RO + 0x80, rep movsb)
        FAILS(7, RO + 0x80, popq (%rbx))
        FAILS(7, RO + 0x80, popq RO + 0x80)
        mov     $RO + 0x80, %esi
        mov     $GONE, %edi
        FAILS(4, GONE, cmpsq)
        FAILS(4, GONE, repe cmpsb)
        FAILS(6, GONE, movsl)
        SAME(%rsi, $RO+0x80)
        SAME(%rdi, $GONE)
        SAME(%rcx, $5)
        FAILS(4, GONE, pushq GONE)
        FAILS(4, GONE, call *GONE)
        FAILS(4, GONE, jmp *GONE)
        /* A bit far away: a page behind, and in front. */
        mov     $RO - 0x1000, %ebx
        mov     $0x8400, %ecx
        FAILS(7, RO + 0x80, bts %rcx, (%rbx))
        mov     $RO + 0x1000, %ebx
        mov     $-0x7c00, %rcx
        FAILS(7, RO + 0x80, lock btc %rcx, (%rbx))

        /* Across the end: the first half is not written. */
        mov     $EDGE, %ebx
        FAILS(6, GONE, mov %rax, (%rbx))
        FAILS(6, GONE, add %rax, (%rbx))
        FAILS(6, GONE, lock xadd %rax, (%rbx))
        FAILS(6, GONE, xchg %rax, (%rbx))
        FAILS(6, GONE, movups %xmm0, (%rbx))
        FAILS(6, GONE, movnti %rax, (%rbx))
        FAILS(6, GONE, movsd %xmm0, (%rbx))
        FAILS(6, GONE, fistpll (%rbx))
        FAILS(6, GONE, fstpt (%rbx))
        FAILS(6, GONE, popq (%rbx))
        FAILS(6, GONE, cmpxchg8b (%rbx))
        FAILS(6, GONE, sgdt (%rbx))
        mov     $EDGE, %edi
        mov     $BUF, %esi
        FAILS(6, GONE, movsq)
        FAILS(6, GONE, stosq)
        dec     %r15d
        jnz     again
        END_USER

/* r8: 0 if the memory is what it was. */
unchanged:
        movabs  $0x0f1e2d3c4b5a6978, %rax
        xor     %r8d, %r8d
        cmp     RO + 0x80, %rax
        setne   %r8b
        cmp     RO + 0x88, %rax
        jne     1f
        cmp     GONE - 8, %rax
        jne     1f
        cmp     GONE - 16, %rax
        je      2f
1:      inc     %r8d
2:      ret
