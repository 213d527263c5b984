/*
 * Translations of code that have become wrong: another page at the address, other rights, the same page at two addresses, the same bytes
 * in another mode, at another level, with other flags. All of it hot before it changes.
 */
//- qemu: it checks no alignment
//= mem32[0x500]=0 mem32[0x504]=471 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define PAGE  0x30000           /* code runs there, from one of the frames */
#define ALIAS 0x34000           /* and there */
#define FRAME1 0x38000
#define FRAME2 0x39000
#define HOT   8                 /* how often to run what shall be known */

        .macro  ENTRY address, entry
        movq    $\entry, PTE(\address)
        FLUSH_PAGE(\address)
        .endm

/* Copies code between two labels to the address. Clobbers rsi, rdi, rcx. */
        .macro  COPY from, to, address
        mov     $\from, %esi
        mov     $\address, %edi
        mov     $\to - \from, %ecx
        rep movsb
        .endm

/* Calls rbx until it is hot; each time it returns that in rax. */
#define HOT_CALL(value) HOT_CALL_ __LINE__, value
        .macro  HOT_CALL_ line, value
        mov     $HOT, %ebp
987:    xor     %eax, %eax
        call    *%rbx
        SAME_   \line, %rax, $\value
        dec     %ebp
        jnz     987b
        .endm

test:
        PROGRAM
        mov     $PAGE, %ebx

        /* Other code at the address: by INVLPG, by CR3, back and forth. */
        COPY    one, one_end, FRAME1
        COPY    two, two_end, FRAME2
        mov     $3, %r15d
1:      ENTRY   PAGE, FRAME1 + 7
        HOT_CALL(1)
        ENTRY   PAGE, FRAME2 + 7
        HOT_CALL(2)
        movq    $FRAME1 + 7, PTE(PAGE)
        FLUSH_ALL
        HOT_CALL(1)
        movq    $FRAME2 + 7, PTE(PAGE)
        FLUSH_ALL
        HOT_CALL(2)
        /* From a block elsewhere that jumps there directly, and may have been joined to it. */
        ENTRY   PAGE, FRAME1 + 7
        mov     $HOT, %ebp
2:      call    jump_there
        SAME(%rax, $1)
        dec     %ebp
        jnz     2b
        ENTRY   PAGE, FRAME2 + 7
        call    jump_there
        SAME(%rax, $2)
        dec     %r15d
        jnz     1b

        /* One frame at two addresses: what is relative to RIP differs. */
        COPY    relative, relative_end, FRAME1
        ENTRY   PAGE, FRAME1 + 7
        ENTRY   ALIAS, FRAME1 + 7
        movq    $11, PAGE + 0x1100
        movq    $22, ALIAS + 0x1100
        mov     $3, %r15d
1:      mov     $PAGE, %ebx
        HOT_CALL(11)
        mov     $ALIAS, %ebx
        HOT_CALL(22)
        mov     $PAGE, %ebx
        dec     %r15d
        jnz     1b
        mov     $PAGE + 16, %ebx        # CALL that pushes where it is
        HOT_CALL(PAGE + 21)
        mov     $ALIAS + 16, %ebx
        HOT_CALL(ALIAS + 21)

        /* Written through the alias while it runs at the other address. */
        COPY    one, one_end, FRAME1
        mov     $PAGE, %ebx
        HOT_CALL(1)
        movb    $7, ALIAS + 1
        HOT_CALL(7)
        movb    $8, FRAME1 + 1
        HOT_CALL(8)
        IN_KERNEL movb $9, ALIAS + 1
        HOT_CALL(9)

        /* The same bytes in 64-bit code and in 32-bit code: 48 is DEC EAX or REX.W. */
        COPY    modes, modes_end, FRAME1
        mov     $PAGE, %ebx
        mov     $3, %r15d
1:      mov     $HOT, %ebp
2:      xor     %eax, %eax
        call    *%rbx
        SAME(%rax, $0x1)
        call    in_compat
        SAME(%rax, $-2)
        dec     %ebp
        jnz     2b
        dec     %r15d
        jnz     1b

        /* At both levels: CS, and a page that the kernel alone has. */
        COPY    level, level_end, FRAME1
        movq    $333, FRAME2 + 0x80
        ENTRY   ALIAS, FRAME2 + 3
        mov     $HOT, %ebp
1:      IN_KERNEL call *%rbx
        SAME(%rdx, $SEL_CODE64)
        SAME(%r8, $333)
        CATCH   2f, PAGE + 2
        mov     %rsp, %r12
        call    *%rbx
2:      mov     %r12, %rsp
        CAUGHT(14, 5, ALIAS + 0x80)
        SAME(%rdx, $SEL_UCODE64)
        dec     %ebp
        jnz     1b

        /* With DF set and clear. */
        COPY    strings, strings_end, FRAME1
        mov     $HOT, %ebp
1:      mov     $FRAME2 + 0x200, %edi
        call    *%rbx
        SAME(%rdi, $FRAME2 + 0x202)
        std
        mov     $FRAME2 + 0x200, %edi
        call    *%rbx
        cld
        SAME(%rdi, $FRAME2 + 0x1fe)
        dec     %ebp
        jnz     1b

        /* With alignment checks and without. */
        COPY    odd, odd_end, FRAME1
        mov     $0x80050033, %r13d      # CR0.AM
        IN_KERNEL mov %r13, %cr0
        mov     $HOT, %ebp
1:      mov     $FRAME2 + 0x201, %edi
        call    *%rbx
        pushf
        orl     $0x40000, (%rsp)
        popf
        CATCH   2f, PAGE
        mov     %rsp, %r12
        call    *%rbx
2:      mov     %r12, %rsp
        pushf
        andl    $~0x40000, (%rsp)
        popf
        CAUGHT(17, 0, none)
        dec     %ebp
        jnz     1b

        /* Rights that go: no code there any more, then the kernel's, then gone; and back. */
        COPY    one, one_end, FRAME1
        mov     $3, %r15d
1:      ENTRY   PAGE, FRAME1 + 7
        HOT_CALL(1)
        movl    $0x80000000, PTE(PAGE) + 4
        call    refused
        SAME(%rdx, $0x15)
        ENTRY   PAGE, FRAME1 + 7
        HOT_CALL(1)
        movq    $FRAME1 + 3, PTE(PAGE)
        call    refused
        SAME(%rdx, $0x15)
        ENTRY   PAGE, FRAME1 + 7
        HOT_CALL(1)
        movq    $0, PTE(PAGE)
        call    refused
        SAME(%rdx, $0x14)
        dec     %r15d
        jnz     1b
        END_USER

/* The entry has just been changed. rdx: error code of the fetch at rbx. */
refused:
        FLUSH_PAGE(PAGE)
        CATCH   1f, PAGE
        mov     %rsp, %r12
        call    *%rbx
1:      mov     %r12, %rsp
        SAME(REC, $1)
        SAME(REC_FIRST + 8, $0)
        SAME(REC_FIRST + 16, $PAGE)
        mov     REC_FIRST + 4, %edx
        ret

jump_there:
        jmp     multiboot + PAGE - 0xa000

one:    mov     $1, %eax
        ret
one_end:
two:    mov     $2, %eax
        ret
two_end:
        .balign 16
relative:
        mov     relative + 0x1100(%rip), %rax
        ret
        .balign 16
        call    1f
1:      pop     %rax
        ret
relative_end:
modes:  .byte   0x48, 0xff, 0xc8        # dec rax, or dec eax twice
        .byte   0x48, 0x99              # cqo, or dec eax and cdq
        .byte   0x48, 0x83, 0xc0, 0x02  # add rax, 2, or dec eax; add eax, 2
        .byte   0xc3
modes_end:
level:  mov     %cs, %edx
        mov     ALIAS + 0x80, %r8
        ret
level_end:
strings:
        stosb
        stosb
        ret
strings_end:
odd:    mov     (%rdi), %eax
        ret
odd_end:

/* Calls ebx in compatibility mode with EAX 0; RAX is sign-extended EAX. */
in_compat:
        pushq   $0
        movl    $SEL_UCODE32, 4(%rsp)
        movl    $1f, (%rsp)
        ljmpl   *(%rsp)
        .code32
1:      mov     $SEL_UDATA, %eax
        mov     %eax, %ss
        xor     %eax, %eax
        call    *%ebx
        ljmpl   $SEL_UCODE64, $1f
        .code64
1:      cltq
        add     $8, %rsp
        ret
