/*
 * A program's addresses that wrap, at 64 bits and at 32: base, scaled index, displacement, segment base, RIP, bit offsets. What is
 * touched is what the SDM computes (Vol. 1 3.3.7, 3.7.5), and nothing of it is the program's: each faults with that address.
 * All of it twice, the second time in code that is known.
 */
//- qemu: it has #GP where the SDM has #SS
//= mem32[0x500]=0 mem32[0x504]=110 mem64[0x508]=0 mem64[0x510]=0
#include "long64.inc"

#define WRONG 0x500
#define TRIED 0x504
#define FIRST 0x508             /* the address that was wanted */
#define FOUND 0x510

        .set    RBX, 0x1000
        .set    RDI, -256
        .set    RSI, 0x7fffffffffffffff
        .set    RBP, 0x8000000000000000
        .set    R8, 0x123456789
        .set    R9, 0xffffffff80000000
        .set    R10, 0x40000000
        .set    R11, 0x4000000000000000
        .set    FS, 0xffff800000200000
        .set    GS, 0x00007ffffffff000
        .set    RSP, USTACK - 0x100

/* An address for the assembler, to which a constant would be a displacement. */
#define THERE(address) (multiboot + (address) - 0xa000)

/* The instruction faults: a page fault with that error code at that address. */
        .macro  PF error, address, insn:vararg
        movabs  $(\address), %rax
        mov     $14 | \error << 8, %ecx
        call    prepare
        FAULTS  \insn
        call    check
        .endm

/* Not canonical: vector 13, or 12 for the stack. */
        .macro  GP vector, insn:vararg
        mov     $-1, %rax
        mov     $\vector, %ecx
        call    prepare
        FAULTS  \insn
        call    check
        .endm

test:
        mov     $0xc0000100, %ecx       # FS base
        mov     $FS & 0xffffffff, %eax
        mov     $FS >> 32, %edx
        wrmsr
        inc     %ecx                    # GS base
        mov     $GS & 0xffffffff, %eax
        mov     $GS >> 32, %edx
        wrmsr
        TO_USER
        mov     $2, %r15d
again:
        /* 64 bits */
        PF 5, (R10 - 0x100), mov -0x100(%r10), %al
        PF 5, (RDI + R10), mov (%rdi,%r10), %rdx
        PF 7, (RDI + R10 - 0x1000), mov %rdx, -0x1000(%r10,%rdi)
        PF 4, (RSI + RSI), mov (%rsi,%rsi), %dl
        PF 6, (RSI + RSI - 0x7ffffffe), mov %edx, -0x7ffffffe(%rsi,%rsi)
        PF 4, (R10 - 0x80000000), mov -0x80000000(%r10), %edx
        PF 4, (R9 + R10 * 2 + 0x40000000), mov 0x40000000(%r9,%r10,2), %edx
        PF 6, (R10 + R11 * 4), movl $1, (%r10,%r11,4)
        PF 6, (R10 + R11 * 8 + 8), mov %rdx, 8(%r10,%r11,8)
        PF 4, (RBP + RBP + 0x40000000), mov 0x40000000(%rbp,%rbp), %rdx
        PF 4, (RSI + RBP + 1 + 0x7ffffff0), movups 0x7ffffff1(%rsi,%rbp), %xmm0
        GP 13, mov (%r11), %al
        GP 13, mov (%r10,%r11,2), %al
        GP 13, mov (%rsi,%rsi,2), %al
        GP 12, mov (%rbp), %al
        GP 12, mov (%rbp,%rbx,8), %al
        GP 13, mov %al, (%rsi)
        /* displacements alone, and RIP */
        PF 5, 0x3ffffff8, mov 0x3ffffff8, %rdx
        PF 4, 0x7ffffff8, mov 0x7ffffff8, %rdx
        PF 6, -8, mov %rdx, -8
        PF 4, 0x555555554123, movabs 0x555555554123, %al
        PF 4, 0x7fffffffefff, movabs 0x7fffffffefff, %rax
        GP 13, movabs %rax, 0x8123456789abcdef
        PF 4, 0x40001234, mov THERE(0x40001234)(%rip), %edx
        PF 6, -0x7fff0000, movl $5, THERE(-0x7fff0000)(%rip)
        PF 7, 0x200008, movw $5, THERE(0x200008)(%rip)
        /* 32 bits: the sum is cut, whatever the registers' upper halves are */
        PF 5, 0x23456789, mov (%r8d), %dl
        PF 4, 0x63456789, mov 0x40000000(%r8d), %dx
        PF 4, 0xbfffffff, mov -1(%r10d,%r10d,2), %dl
        PF 5, 0x23456689, mov (%r8d,%edi), %dl
        PF 4, 0xffffff00, mov (%edi), %rdx
        PF 7, 0x3fffff00, mov %rdx, 0x40000000(%edi)
        PF 4, 0xffffffff, mov (%esi), %dl
        PF 4, 0x80000000, mov (%r9d), %dl
        PF 6, 0x40001000, movl $1, 0x40000000(%r11d,%ebx)
        /* segment bases, which are added to the sum as it is */
        PF 5, FS, mov %fs:0, %rdx
        PF 5, (FS + 0x7ffff8), mov %fs:0x7ffff8, %rdx
        PF 7, (FS + RBX), movb $1, %fs:(%rbx)
        PF 5, (FS + 0x23456789), mov %fs:(%r8d), %dl
        PF 4, (FS + 0xffffff00), mov %fs:(%edi), %dl
        GP 13, mov %fs:(%r9,%r11), %dl
        PF 4, (GS + RDI), mov %gs:(%rdi), %rdx
        GP 13, mov %gs:(%rbx), %dl
        GP 13, mov %gs:0xfff, %dx
        PF 4, (GS + 0xfff), mov %gs:0xfff, %dl
        PF 4, R10, mov %ds:(%r10), %dl
        /* strings, bit offsets, the stack */
        PF 4, 0xffffffff, addr32 lodsb
        PF 6, 0xffffff00, addr32 stosb
        GP 13, lodsb
        PF 5, (R10 - 32), bt %rdi, (%r10)
        PF 5, (R10 - 32), bt %edi, (%r10)
        GP 13, bt %r11, (%r10)
        PF 4, (RSP + 0x40000000), mov 0x40000000(%rsp), %rdx
        PF 6, (RSP + 8 + 0x40000000), popq 0x40000000(%rsp)
        PF 4, (RSP + 0x40000000), pushq 0x40000000(%rsp)
        dec     %r15d
        jnz     again
        END_USER

/* rax: address, cl: vector, ch: error code */
prepare:
        incl    TRIED
        movl    $0, REC
        mov     %rax, wanted
        mov     %ecx, wanted_vector
        mov     $RBX, %ebx
        mov     $RDI, %rdi
        movabs  $RSI, %rsi
        movabs  $RBP, %rbp
        movabs  $R8, %r8
        mov     $R9, %r9
        mov     $R10, %r10d
        movabs  $R11, %r11
        mov     %rsp, %r14
        pop     %r13
        mov     $RSP, %esp
        jmp     *%r13

check:
        mov     (%rsp), %r13
        mov     %r14, %rsp
        mov     REC_FIRST, %ecx
        mov     REC_FIRST + 4, %edx
        shl     $8, %edx
        or      %edx, %ecx
        mov     REC_FIRST + 16, %rdx
        cmp     wanted_vector, %ecx
        jne     1f
        cmpl    $1, REC
        jne     1f
        cmpq    $0, REC_FIRST + 8
        jne     1f
        cmp     $14, %cl
        jne     2f
        cmp     wanted, %rdx
        je      2f
1:      incl    WRONG
        cmpl    $1, WRONG
        jne     2f
        mov     wanted, %rax
        mov     %rax, FIRST
        mov     %rdx, FOUND
        mov     %ecx, FOUND + 8
2:      add     $8, %rsp
        jmp     *%r13

        .balign 8
wanted: .quad   0
wanted_vector: .long 0
