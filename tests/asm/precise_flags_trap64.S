/*
 * Flags at the #DE and the #XM of instructions that touch none. Each begins a block that is jumped to hot, with flags of its own, and
 * what comes behind it overwrites them all.
 */
//- qemu: it raises no #XM
//= n_exc=2 exc0=0 exc0.at=0 exc0.flags&0x8d5=0x44 exc1=19 exc1.at=0 exc1.flags&0x8d5=0x95 rbx=38
#include "long64.inc"

/* Twenty rounds, all the same way; in the last one the divisor is 0, and n - 1 sets the flags. */
        .macro  ROUNDS n, insn:vararg
        mov     $20, %r15d
        movq    $6f, recover
        movq    $5f, fault_at
1:      mov     %r15d, %ebp
        dec     %ebp
        cvtsi2sd %ebp, %xmm1
        cmp     $\n, %r15d
        jmp     3f
        nop
3:      mov     $0, %edx
        mov     $1, %eax
5:      \insn
        add     $1, %ebx
        dec     %r15d
        jg      1b
6:
        .endm

test:
        movl    $0x1d80, 0x20000        # division by zero unmasked
        ldmxcsr 0x20000
        mov     $1, %eax
        cvtsi2sd %eax, %xmm0
        ROUNDS  1, div %ebp
        ROUNDS  2, divsd %xmm1, %xmm0
        END
