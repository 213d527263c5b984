/* #MF at an instruction that reads flags nothing has used yet, and at one of MMX: all is as it was, and the pointers are the culprit's */
//= n_exc=2 exc0=16:0 exc0.at=0 exc0.flags&0x8d5=0x890 exc1=16:0 exc1.at=0 exc1.flags&0x8d5=0x45 rsi&0x8d5=0x890 rdi&0x8d5=0x45 rbx=0 rdx=0x5a
#include "long64.inc"

/* Like FAULTS, with nothing between what sets the flags and the instruction. FNSTSW does not wait: x87 is in use by then. */
.macro  FAULTS_AFTER flags:req, insn:vararg
        movq    $992f, recover
        movq    $991f, fault_at
        fnstsw  %ax
        mov     $0x7f, %eax
        \flags
991:    \insn
992:
.endm

.macro  PENDING
        fldz
1:      fdivrp                          # 1 / 0
.endm

test:
        fninit
        movw    $0x37b, 0x20000         # ZM clear
        fldcw   0x20000
        fld1
        PENDING
        FAULTS_AFTER "add $1, %al", fcmovb %st(1), %st
        pushfq
        pop     %rsi
        fxsave64 0x20200
        mov     0x20208, %rbx
        sub     $1b, %rbx
        fninit
        mov     $0x5a, %edx
        movd    %edx, %mm1
        xor     %edx, %edx
        emms
        fldcw   0x20000
        fld1
        PENDING
        xor     %eax, %eax
        cmp     %eax, %eax
        FAULTS_AFTER "stc", movd %mm1, %edx
        pushfq
        pop     %rdi
        fnclex
        movd    %mm1, %edx
        END
