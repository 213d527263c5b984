/*
 * Code at a page's end, where the next page is not there, holds no code, or is the kernel's: a fault at the instruction, wherever it is
 * split, that names the next page; again after it was there for a while. What the next page says is what runs, also when that changed.
 */
//= mem32[0x500]=0 mem32[0x504]=354 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define PAGE 0x30000
#define NEXT (PAGE + 0x1000)
#define NX   63

/* `movabs $r8, %rax; ret`, n bytes of it (r9) in the first page; then runs it. */
        .macro  WRITE_CODE
        mov     $NEXT, %edi
        sub     %r9, %rdi
        movw    $0xb848, (%rdi)
        mov     %r8, 2(%rdi)
        movb    $0xc3, 10(%rdi)
        .endm

/* The next page's entry is rsi, and no TLB knows another. */
        .macro  ENTRY
        mov     %rsi, PTE(NEXT)
        FLUSH_PAGE(NEXT)
        .endm

/* Calls rdi: a fault at rdi if the instruction is split, at the next page if it is not; rdx has the error code. */
fetch_fault:
        CATCH   1f, 0
        mov     %rdi, fault_at
        cmp     $11, %r9d
        jne     2f
        movq    $NEXT, fault_at
2:      mov     %rsp, %r12
        call    *%rdi
1:      mov     %r12, %rsp
        shl     $32, %rdx
        or      $14, %rdx
        SAME(REC, $1)
        SAME(REC_FIRST, %rdx)
        SAME(REC_FIRST + 8, $0)
        SAME(REC_FIRST + 16, $NEXT)
        ret

test:
        PROGRAM
        mov     $1, %r9d                # bytes in the first page
next_split:
        mov     $NEXT + 7, %esi
        ENTRY
        mov     $0x1122334455667788, %r8
        WRITE_CODE
        mov     $3, %ebp
1:      call    *%rdi
        SAME(%rax, %r8)
        dec     %ebp
        jnz     1b

        /* 10 bytes in the first page: all of MOV, RET in the next. 9 and fewer: MOV is split. */
        mov     $2, %ebp
2:      xor     %esi, %esi              # not there
        mov     $0x14, %r13d
        call    try
        mov     $NEXT + 3, %esi         # the kernel's
        mov     $0x15, %r13d
        call    try
        mov     $NEXT + 7, %rsi         # no code
        bts     $NX, %rsi
        mov     $0x15, %r13d
        call    try
        dec     %ebp
        jnz     2b

        /* Written by way of the page itself, then another page in its place. */
        mov     $NEXT + 7, %esi
        ENTRY
        not     %r8
        WRITE_CODE
        call    *%rdi
        SAME(%rax, %r8)
        cmp     $2, %r9d                # not the opcode
        jb      3f
        cmp     $10, %r9d
        je      3f
        mov     %rdi, %r10
        mov     $NEXT, %esi
        mov     $NEXT + 0x1000, %edi
        mov     $64, %ecx
        rep movsb
        mov     %r10, %rdi
        notb    NEXT + 0x1000           # there the constant has another byte
        mov     $NEXT + 0x1007, %esi
        ENTRY
        call    *%rdi
        lea     -16(,%r9,8), %ecx
        mov     $0xff, %edx
        shl     %cl, %rdx
        xor     %r8, %rdx
        SAME(%rax, %rdx)
3:      inc     %r9d
        cmp     $10, %r9d
        jbe     next_split
        END_USER

/* With the entry rsi: a fault with error code r13d. And back: it runs. */
try:
        ENTRY
        mov     %r13d, %edx
        cmp     $10, %r9d
        jne     1f
        call    fetch_ret
        jmp     2f
1:      call    fetch_fault
2:      mov     $NEXT + 7, %esi
        ENTRY
        call    *%rdi
        SAME(%rax, %r8)
        ret

/* MOV is whole: it runs, then RET is missing. */
fetch_ret:
        xor     %eax, %eax
        mov     $11, %r9d
        call    fetch_fault
        mov     $10, %r9d
        SAME(%rax, %r8)
        ret
