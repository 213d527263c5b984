/*
 * Operands and instructions that do not end where 4 GiB do: SDM Vol. 3A 5.3 leaves open whether a flat segment's limit holds for them. Here it does,
 * as on many processors: the fault of the segment, and nothing is read or written.
 */
//- qemu: it wraps
//= mem32[0x500]=0 mem32[0x504]=180 mem32[0x508]=0 mem32[0x510]=0 mem32[0x518]=0
#include "prot32.inc"

#include "wrap32.inc"

#define PT_LAST 0x43000

/* The instruction raises the exception, with an error code of 0. */
#define BEYOND(vector, ...) BEYOND_ vector, __LINE__, __VA_ARGS__
        .macro  BEYOND_ vector, line, insn:vararg
        mov     %esp, saved_sp
        movl    $992f, recover
        movl    $991f, fault_at
991:    \insn
992:    mov     saved_sp, %esp
        IS_     \line, REC, $1
        IS_     \line, REC_FIRST, $\vector
        IS_     \line, REC_FIRST + 4, $0
        IS_     \line, REC_FIRST + 8, $0
        movl    $0, REC
        .endm

beyond: call    fill
        mov     $0xfffffff0, %ebx
        mov     $0xfffffffe, %ebp
        BEYOND(13, mov 0xd(%ebx), %eax)
        BEYOND(13, mov 0xf(%ebx), %ax)
        BEYOND(13, mov %eax, 0xe(%ebx))
        BEYOND(13, addl $1, 0xf(%ebx))
        BEYOND(13, lock addl $1, 0xd(%ebx))
        BEYOND(13, movups 8(%ebx), %xmm0)
        BEYOND(13, movups %xmm0, 1(%ebx))
        BEYOND(13, fldt 8(%ebx))
        BEYOND(12, mov (%ebp), %eax)
        BEYOND(13, pushl 0xd(%ebx))
        BEYOND(13, popl 0xe(%ebx))
        mov     $0xfffffffe, %esi
        mov     $0xfffffffd, %edi
        BEYOND(13, lodsl)
        BEYOND(13, stosl)
        mov     $0xfffffff9, %edi
        mov     $2, %ecx
        BEYOND(13, rep stosl)           # behind the first
        IS(%edi, $0xfffffffd)
        IS(%ecx, $1)
        movl    $0xfbfaf9f8, -8         # as it was
        movb    $0xfc, -4
        ret

test:
        movl    $PT_LAST + 7, PD32 + 4 * 1023
        movl    $LAST + 7, PT_LAST + 4 * 1023
        PAGING32
        movl    $3, BUF + 0x800
1:      call    beyond
        mov     0xfffffffc, %eax
        IS(%eax, $0xfffefdfc)
        IS(0, $0xc3c2c1c0)
        decl    BUF + 0x800
        jnz     1b
        END
