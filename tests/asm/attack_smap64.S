/*
 * SMAP and AC turned on and off around accesses to a program's page: what was brought in with AC set serves nobody without it, for
 * each kind of access, warm.
 */
//= n_exc=72 exc0=14:1 exc71=14:3 exc71.cr2=0x20008 mem64[0x20000]=24 mem64[0x20008]=0x5a rbx=72
#include "long64.inc"

        .macro  ALLOWED insn:vararg
        stac
        \insn
        clac
        .endm

        .macro  REFUSED error, insn:vararg
        FAULTS  \insn
        mov     REC, %eax               # the last record says so
        shl     $5, %eax
        cmpl    $14, REC_FIRST - 32(%rax)
        jne     1f
        cmpl    $\error, REC_FIRST - 28(%rax)
        jne     1f
        inc     %ebx
1:
        .endm

test:
        mov     $PT + 5 * 8, %edi       # all the test uses, but 0x20000
1:      andb    $~4, (%rdi)
        add     $8, %edi
        cmp     $PT + 0x18 * 8, %edi
        jb      1b
        mov     %cr3, %rax
        mov     %rax, %cr3
        mov     %cr4, %rax
        bts     $21, %rax
        mov     %rax, %cr4
        mov     $24, %r15d
2:      ALLOWED mov 0x20000, %rcx
        REFUSED 1, mov 0x20000, %rcx
        ALLOWED incq 0x20000
        REFUSED 3, movups %xmm0, 0x20000
        ALLOWED movq $0x5a, 0x20008
        REFUSED 3, movq $0x77, 0x20008
        dec     %r15d
        jnz     2b
        END
