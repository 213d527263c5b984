/*
 * Programs that jump where nothing of theirs is: every way to jump, hot with a good target first, to the kernel's pages, to none, to data, to
 * addresses of a host, and to those that are no address. The fault is at the target, or at the jump where the target is not canonical; RSP
 * is what the SDM has (Vol. 2, CALL, RET, IRET, JMP).
 */
//- qemu: it finds targets that are not canonical when it fetches there
//= mem32[0x500]=0 mem32[0x504]=2592 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define DATA 0x30000            /* NX */

/* Jumps to rax, which is at `slot` too: 1 to 2. How RSP moves when it is taken, and when the last instruction faults. */
        .macro  WAY taken, refused
        .balign 32
        .byte   \taken, \refused, 2f - 1f
        .endm
#define WAY_CODE 3

        .macro  TARGET address, vector, error
        .quad   \address
        .long   \vector, \error
        .endm

        .balign 32
ways:
        WAY     0, 0
1:2:      jmp     *%rax
        WAY     0, 0
1:2:      jmp     *slot
        WAY     -8, 0
1:2:      call    *%rax
        WAY     -8, 0
1:2:      call    *slot
        WAY     0, -8
1:      push    %rax
2:      ret
        WAY     32, -8
1:      push    %rax
2:      ret     $32
        WAY     0, -16
1:      push    $SEL_UCODE64
        push    %rax
2:      lretq
        WAY     0, -40
1:      mov     %rsp, %rdx
        push    $SEL_UDATA
        push    %rdx
        pushf
        push    $SEL_UCODE64
        push    %rax
2:      iretq
        .balign 32
ways_end:

        .balign 8
targets:
        TARGET  0x200000, 14, 0x15              # the kernel's
        TARGET  0xffff800000200000, 14, 0x15
        TARGET  DATA, 14, 0x15
        TARGET  DATA + 0xfff, 14, 0x15
        TARGET  0x40000000, 14, 0x14            # nobody's
        TARGET  0x7fffffff, 14, 0x14
        TARGET  0x80000000, 14, 0x14
        TARGET  0x555555554000, 14, 0x14
        TARGET  0x7ffff7dd5000, 14, 0x14
        TARGET  0x7fffffffffff, 14, 0x14
        TARGET  0xffffffff81000000, 14, 0x14
        TARGET  0xffffffffffffffff, 14, 0x14
        TARGET  0x800000000000, 13, 0           # no addresses
        TARGET  0xffff7fffffffffff, 13, 0
        TARGET  0x8000000000000000, 13, 0
        TARGET  0xdeadbeefcafef00d, 13, 0
targets_end:
slot:   .quad   0
want_sp: .quad  0

test:
        btsq    $63, PTE(DATA)
        PROGRAM
        FLUSH_PAGE(DATA)
        mov     $3, %r15d
again:
        mov     $ways, %ebp
1:      mov     $targets, %ebx
2:      call    jump_good
        call    jump_good
        call    jump_bad
        add     $16, %ebx
        cmp     $targets_end, %ebx
        jb      2b
        add     $32, %ebp
        cmp     $ways_end, %ebp
        jb      1b
        dec     %r15d
        jnz     again
        END_USER

/* By the way at rbp to a place that is good. */
jump_good:
        movq    $0, recover
        mov     %rsp, %r12
        mov     $1f, %eax
        mov     %rax, slot
        lea     WAY_CODE(%rbp), %ecx
        jmp     *%rcx
1:      mov     %rsp, %rdx
        mov     %r12, %rsp
        sub     %r12, %rdx
        movsbq  (%rbp), %r13
        SAME(%rdx, %r13)
        ret

/* And to the target at rbx. */
jump_bad:
        CATCH   1f, 0
        mov     %rsp, %r12
        mov     (%rbx), %rax
        mov     %rax, slot
        mov     %rax, fault_at
        movsbq  (%rbp), %r13
        lea     WAY_CODE(%rbp), %ecx
        cmpl    $13, 8(%rbx)
        jne     2f
        movsbq  1(%rbp), %r13
        movzbl  2(%rbp), %edx
        add     %ecx, %edx
        mov     %rdx, fault_at
2:      jmp     *%rcx
1:      mov     %rsp, %rdx
        mov     %r12, %rsp
        sub     %r12, %rdx
        SAME(%rdx, %r13)
        SAME(REC, $1)
        mov     8(%rbx), %rdx
        SAME(REC_FIRST, %rdx)
        SAME(REC_FIRST + 8, $0)
        cmpl    $14, 8(%rbx)
        jne     3f
        SAME(REC_FIRST + 16, (%rbx))
3:      ret
