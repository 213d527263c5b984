/*
 * What only a kernel may do, tried by a program, in code that is hot, with flags that must come through; what is allowed but must not work
 * (POPF, IRET of IF and IOPL) does not.
 */
//- qemu: the error code of INT counts the gate in units of 16 there
//= mem32[0x500]=0 mem32[0x504]=988 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

/* #GP(0), with the flags of the instruction before: CF, PF, AF and SF. */
#define REFUSED(...) REFUSED_ __LINE__, __VA_ARGS__
        .macro  REFUSED_ line, insn:vararg
        xor     %r8d, %r8d
        movl    $0, REC
        movq    $992f, recover
        movq    $991f, fault_at
        sub     $1, %r8d
991:    \insn
        inc     %r9d
992:    CAUGHT_ \line, 13, 0, none
        push    REC_FIRST + 24
        andl    $0x8d5, (%rsp)
        pop     %r8
        SAME_   \line, %r8, $0x95
        .endm

test:
        PROGRAM
        mov     $4, %r15d
        xor     %r9d, %r9d
again:
        mov     $BUF, %edi
        mov     $BUF, %esi
        mov     $1, %ecx
        mov     $0x80, %edx
        REFUSED(hlt)
        REFUSED(clts)
        REFUSED(wbinvd)
        REFUSED(invd)
        REFUSED(cli)
        REFUSED(sti)
        REFUSED(swapgs)
        REFUSED(sysretq)
        REFUSED(sysretl)
        REFUSED(sysexitq)
        REFUSED(invlpg (%rdi))
        REFUSED(lgdt (%rdi))
        REFUSED(lidt (%rdi))
        REFUSED(lldt %cx)
        REFUSED(ltr %cx)
        REFUSED(lmsw %cx)
        .irp    n, 0, 2, 3, 4, 8
        REFUSED_ __LINE__, mov %cr\n, %rax
        REFUSED_ __LINE__, mov %rax, %cr\n
        .endr
        .irp    n, 0, 1, 2, 3, 6, 7
        REFUSED_ __LINE__, mov %db\n, %rax
        REFUSED_ __LINE__, mov %rax, %db\n
        .endr
        REFUSED(in $0x80, %al)
        REFUSED(in %dx, %eax)
        REFUSED(out %al, $0x80)
        REFUSED(outl %eax, %dx)
        REFUSED(insb)
        REFUSED(outsl)
        REFUSED(rep insl)
        REFUSED(rep outsb)
        mov     $0x10, %ecx             # IA32_TIME_STAMP_COUNTER and others
        REFUSED(rdmsr)
        REFUSED(wrmsr)
        mov     $0xc0000080, %ecx
        REFUSED(rdmsr)
        REFUSED(wrmsr)
        mov     $0xffffffff, %ecx
        REFUSED(rdmsr)
        xor     %ecx, %ecx
        REFUSED(rdpmc)
        SAME(%r9, $0)

        /* INT to gates of the kernel's: #GP names the gate. */
        FAULT(13, (0x2+8*14), none, int $14)
        FAULT(13, (0x2+8*0x20), none, int $0x20)
        FAULT(13, (0x2+8*0xff), none, int $0xff)

        /* Selectors of the kernel's, and the null selector for SS. */
        mov     $SEL_DATA, %eax
        FAULT(13, SEL_DATA, none, mov %eax, %ss)
        mov     $SEL_DATA | 3, %eax
        FAULT(13, SEL_DATA, none, mov %eax, %ss)
        mov     $SEL_CODE64, %eax
        FAULT(13, SEL_CODE64, none, mov %eax, %ds)
        mov     $SEL_TSS, %eax
        FAULT(13, SEL_TSS, none, mov %eax, %fs)
        xor     %eax, %eax
        FAULT(13, 0, none, mov %eax, %ss)

        /* Far transfers upward. */
        movl    $again, BUF
        movw    $SEL_CODE64, BUF + 4
        FAULT(13, SEL_CODE64, none, ljmpl *BUF)
        FAULT(13, SEL_CODE64, none, lcall *BUF)
        mov     %rsp, %r12
        pushq   $SEL_CODE64
        pushq   $again
        FAULT(13, SEL_CODE64, none, lretq)
        pushq   $SEL_DATA
        pushq   $USTACK
        pushq   $2
        pushq   $SEL_CODE64
        pushq   $again
        FAULT(13, SEL_CODE64, none, iretq)
        mov     %r12, %rsp

        /* POPF and IRET neither turn interrupts on nor give rights. */
        pushq   $0x3202
        popf
        pushf
        pop     %rax
        SAME(%rax, $2)
        mov     %rsp, %r12
        pushq   $SEL_UDATA
        push    %r12
        pushq   $0x3202
        pushq   $SEL_UCODE64
        pushq   $1f
        iretq
1:      pushf
        pop     %rax
        SAME(%rax, $2)
        dec     %r15d
        jnz     again
        END_USER
