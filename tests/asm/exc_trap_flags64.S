/* Arithmetic that faults right behind what sets the flags: the handler sees those flags, and all that the fault leaves alone stays */
//- qemu: TCG raises no #XM
//= n_exc=3 exc0=0:0 exc0.at=0 exc0.flags&0x8d5=0x890 exc1=19:0 exc1.at=0 exc1.flags&0x8d5=0x45 exc2=19:0 exc2.at=0 exc2.flags&0x8d5=0x885
//= r10=0x5a r11=0xa5 rsi&0x8d5=0x890 rdi&0x8d5=0x45 rbp&0x8d5=0x885 mem32[0x20000]&0x3f=5
#include "long64.inc"

/* Like FAULTS, with nothing between what sets the flags and the instruction. */
.macro  FAULTS_AFTER flags:req, insn:vararg
        movq    $992f, recover
        movq    $991f, fault_at
        \flags
991:    \insn
992:
.endm

test:
        movl    $0x1d00, 0x20000        # IM and ZM clear
        ldmxcsr 0x20000
        mov     $0x3f800000, %eax
        movd    %eax, %xmm0
        pxor    %xmm1, %xmm1
        pcmpeqd %xmm2, %xmm2            # a NaN
        xor     %ecx, %ecx
        mov     $0x5a, %r10d
        mov     $0xa5, %r11d
        mov     $0x7f, %eax
        FAULTS_AFTER "add $1, %al", div %ecx
        pushfq
        pop     %rsi
        xor     %eax, %eax
        cmp     %eax, %eax
        FAULTS_AFTER "stc", divss %xmm1, %xmm0
        pushfq
        pop     %rdi
        mov     $0x7f, %eax
        FAULTS_AFTER "cmp $0x80, %al", cvttss2si %xmm2, %r10
        pushfq
        pop     %rbp
        stmxcsr 0x20000
        END
