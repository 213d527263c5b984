/*
 * Interrupts in a hot loop, at both levels: wherever one comes, registers, memory and flags are those of that place, and nothing is done
 * twice or left out.
 */
//- qemu: the timer is the box's own
//= mem32[0x500]=0 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0 rbx=0 rdx=0
#include "user64.inc"

#define TIMER  0xe0
#define VECTOR 0x20
#define ENOUGH 200
#define COUNT  BUF              /* what the loop counts in memory */
#define STOP   (BUF + 8)
#define TAKEN  (BUF + 16)

/* rax, rbx, COUNT and rcx go up by one each, in this order; CF is set from l4 to l5. */
        .macro  LOOP
        xor     %eax, %eax
        xor     %ebx, %ebx
        xor     %ecx, %ecx
        movq    $0, COUNT
        movl    $0, STOP
        movl    $0, TAKEN
        call    l0
        sub     %rcx, %rax
        sub     %rcx, %rbx
        sub     COUNT, %rcx
        or      %rax, %rbx
        or      %rcx, %rbx
        SAME(%rbx, $0)
        .endm

l0:     inc     %rax
l1:     inc     %rbx
l2:     lock incq COUNT
l3:     stc
l4:     inc     %rcx
l5:     clc
l6:     cmpl    $0, STOP
l7:     je      l0
        ret

/* For each place: rax - rbx, rbx - COUNT, COUNT - rcx, and CF or -1. */
        .balign 8
places: .quad   l0, l1, l2, l3, l4, l5, l6, l7, l7 + 2
ahead:  .byte   0, 1, 0, 0, 0, 0, 0, 0, 0
        .byte   0, 0, 1, 0, 0, 0, 0, 0, 0
        .byte   0, 0, 0, 1, 1, 0, 0, 0, 0
carry:  .byte   -1, -1, -1, -1, 1, 1, 0, 0, 0
#define N 9

test:
        mov     $on_timer, %eax
        mov     %ax, IDT + 16 * VECTOR

        mov     $100, %eax              # microseconds
        outl    %eax, $TIMER
        sti
        LOOP
        cli
        pushq   $SEL_UDATA
        pushq   $USTACK
        pushq   $0x202
        pushq   $SEL_UCODE64
        pushq   $1f
        iretq
1:      LOOP
        xor     %edx, %edx
        END_USER

on_timer:
        push    %rax
        push    %rbx
        push    %rcx
        push    %rdx
        push    %rsi
        xor     %esi, %esi
        mov     40(%rsp), %rdx          # RIP
1:      cmp     places(,%rsi,8), %rdx
        je      2f
        inc     %esi
        cmp     $N, %esi
        jb      1b
        jmp     9f                      # not in the loop: on its way there or back
2:      sub     %rbx, %rax
        movzbl  ahead(%rsi), %edx
        SAME(%rax, %rdx)
        sub     COUNT, %rbx
        movzbl  ahead + N(%rsi), %edx
        SAME(%rbx, %rdx)
        mov     COUNT, %rdx
        sub     %rcx, %rdx
        movzbl  ahead + 2 * N(%rsi), %ecx
        SAME(%rdx, %rcx)
        mov     carry(%rsi), %dl
        test    %dl, %dl
        js      3f
        mov     56(%rsp), %eax          # RFLAGS
        and     $1, %eax
        movzbl  %dl, %edx
        SAME(%rax, %rdx)
3:      incl    TAKEN
        cmpl    $ENOUGH, TAKEN
        jb      9f
        movl    $1, STOP
9:      pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rbx
        pop     %rax
        iretq
