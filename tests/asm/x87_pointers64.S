/* FIP, FOP and FDP: of the last instruction that was not a control one, whatever has happened to the registers in between */
//- qemu: TCG's FNSTENV shows no FOP
//= rax=0 rbx=0 rcx=0x0c8 rdx=0x20108 rsi=0 rdi=0x0c8 r8=0x20108 r9=0 r10=0x3ff0000000000000 r11=0 r12=0x20010 r13=0x514
#include "long64.inc"

/* The FIP that FNSTENV or FXSAVE left at `at`, less that of the label. */
.macro  FIP_LESS at:req, label:req, to:req
        mov     \at, \to
        sub     $\label, \to
.endm

test:
        fninit
        fnstenv 0x20000
        mov     0x2000c, %eax
        or      0x20014, %eax           # both 0
        mov     $0x20100, %ebp
        fld1
        fldpi
        fstpl   8(%rbp)                 # FDP
1:      fmul    %st, %st                # FOP: D8 C8
        fnstcw  0x20040                 # changes none of them
        fxsave64 0x20200
        FIP_LESS 0x20208, 1b, %rbx
        movzwl  0x20206, %ecx
        mov     0x20210, %rdx
        fnstenv 0x20000
        FIP_LESS 0x2000c, 1b, %esi
        movzwl  0x20012, %edi
        mov     0x20014, %r8d
        fldcw   0x20040
        mov     $0x20000, %r12d
        mov     $8, %r10d
        movl    $0, 0x20140
        fiaddl  0x20140
2:      fstl    (%r12,%r10,2)           # FOP: DD 14
        fwait
        fxsave64 0x20200
        FIP_LESS 0x20208, 2b, %r9
        mov     0x20210, %r12
        movzwl  0x20206, %r13d
        mov     0x20010, %r10
        END
