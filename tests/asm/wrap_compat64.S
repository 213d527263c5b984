/*
 * Addresses of 32 and 16 bits that wrap, in compatibility mode and by prefix in 64-bit mode: effective addresses are cut before a 64-bit
 * base is added, linear ones to 32 bits (SDM Vol. 1 3.3.7.1). The last page below 4 GiB, the first page, and the one above 4 GiB, which only
 * 64-bit code may reach, have different contents.
 */
//= mem32[0x500]=0 mem32[0x504]=435 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "long64.inc"

#define FAILED     0x500
#define CHECKS     0x504
#define FIRST_LINE 0x508
#define FOUND      0x510
#define WANTED     0x518

#define LAST    0x40000         /* frames of those pages */
#define OVER    0x41000
#define PD_LAST 0x42000
#define PT_LAST 0x43000
#define PD_OVER 0x44000
#define PT_OVER 0x45000

/* Byte n of the last page is n, of the first 64 from address 0 on 0xc0 + n, and of those above 4 GiB 0xee. */
        .code32
fill:   pusha
        cld
        mov     $0xffffff00, %edi
        xor     %eax, %eax
1:      mov     %al, (%edi,%eax)
        inc     %al
        jnz     1b
        mov     $0xc0, %al
        xor     %edi, %edi
1:      stosb
        inc     %al
        jnz     1b
        popa
        ret

/* A 32-bit operand of PUSH is the same as another. Clobbers nothing but flags. */
#define IS(a, b) IS_ __LINE__, a, b
        .macro  IS_ line, a, b
        movl    $\line, line
        push    \a
        push    \b
        call    compare
        .endm

        .code32
compare:
        push    %eax
        mov     12(%esp), %eax
        incl    CHECKS
        cmp     8(%esp), %eax
        je      1f
        incl    FAILED
        cmpl    $1, FAILED
        jne     1f
        mov     %eax, FOUND
        mov     8(%esp), %eax
        mov     %eax, WANTED
        mov     line, %eax
        mov     %eax, FIRST_LINE
1:      pop     %eax
        ret     $8

        .balign 4
line:   .long   0
saved_sp: .long 0

/* ---- 32-bit code ---- */

cases:  call    loads
        call    stores
        call    stack
        call    strings
        call    bits16
        call    flow
        lret

loads:  call    fill
        mov     $0xfffffff0, %ebx
        mov     $4, %ecx
        mov     $0x80000000, %edx
        mov     $0x40000001, %esi
        mov     0x12(%ebx), %eax
        IS(%eax, $0xc5c4c3c2)
        mov     -8(%ecx), %eax
        IS(%eax, $0xfffefdfc)
        mov     (,%esi,4), %eax
        IS(%eax, $0xc7c6c5c4)
        mov     0x10(%edx,%edx), %eax
        IS(%eax, $0xd3d2d1d0)
        mov     -0x10(%edx,%edx), %eax
        IS(%eax, $0xf3f2f1f0)
        mov     0x20(%ebx,%ebx,2), %eax
        IS(%eax, $0xf3f2f1f0)
        mov     0x40000000(%esi,%edx), %eax
        IS(%eax, $0xc4c3c2c1)
        movzbl  0x11(%ebx), %eax
        IS(%eax, $0xc1)
        movswl  0xe(%ebx), %eax
        IS(%eax, $-2)
        xor     %eax, %eax
        add     0x14(%ebx), %al
        IS(%eax, $0xc4)
        pushl   0x18(%ebx)
        pop     %eax
        IS(%eax, $0xcbcac9c8)
        movups  0x10(%ebx), %xmm0
        movd    %xmm0, %eax
        IS(%eax, $0xc3c2c1c0)
        movaps  (%ebx), %xmm0
        psrldq  $12, %xmm0
        movd    %xmm0, %eax
        IS(%eax, $0xfffefdfc)
        pxor    %xmm1, %xmm1
        paddb   0x20(%ebx), %xmm1
        movd    %xmm1, %eax
        IS(%eax, $0xd3d2d1d0)
        movq    0x18(%ebx), %mm0
        movd    %mm0, %eax
        emms
        IS(%eax, $0xcbcac9c8)
        fildl   0x1c(%ebx)
        fistpl  BUF
        IS(BUF, $0xcfcecdcc)
        mov     $0x13, %eax
        imul    $1, (%ebx,%eax), %eax
        IS(%eax, $0xc6c5c4c3)
        mov     $-8, %eax               # bits in front of address 0, and behind 4 GiB
        btrl    %eax, 0
        setc    %al
        movzbl  %al, %eax
        IS(%eax, $1)
        mov     0xfffffffc, %eax
        IS(%eax, $0xfefefdfc)
        mov     $0x85, %eax
        btsl    %eax, (%ebx)            # 0xfffffff0 + 16, bit 5
        mov     0, %eax
        IS(%eax, $0xc3c2c1e0)
        lea     0x12(%ebx), %eax
        IS(%eax, $2)
        lea     0x7fffffff(%edx,%edx,8), %eax
        IS(%eax, $0xffffffff)
        lea     0x7fffffff(%edx), %ax
        IS(%eax, $0xffffffff)
        lea     (%ebx,%ebx,8), %eax
        IS(%eax, $0xffffff70)
        call    fill
        mov     $0x60, %eax             # segment bases: 0xfffff000, and 0x10
        mov     %eax, %fs
        mov     $0x68, %eax
        mov     %eax, %gs
        mov     %fs:0x1004, %eax
        IS(%eax, $0xc7c6c5c4)
        mov     %fs:0xffc, %eax
        IS(%eax, $0xfffefdfc)
        mov     $0x2000, %eax
        mov     %fs:-0x1000(%eax), %eax
        IS(%eax, $0xc3c2c1c0)
        mov     %gs:(%ebx), %eax
        IS(%eax, $0xc3c2c1c0)
        mov     %gs:-0x14, %eax
        IS(%eax, $0xfffefdfc)
        movups  %gs:0x10(%ebx), %xmm0
        movd    %xmm0, %eax
        IS(%eax, $0xd3d2d1d0)
        ret

stores: call    fill
        mov     $0xfffffff0, %ebx
        movl    $0x11223344, 0x10(%ebx)
        IS(0, $0x11223344)
        movb    $0x55, 0x12(%ebx)
        IS(0, $0x11553344)
        movw    $0x6677, 0x1e(%ebx)
        IS(12, $0x6677cdcc)
        addl    $1, 0x14(%ebx)
        IS(4, $0xc7c6c5c5)
        lock addl $2, 0x14(%ebx)
        IS(4, $0xc7c6c5c7)
        mov     $-1, %eax
        lock xadd %eax, 0x14(%ebx)
        IS(%eax, $0xc7c6c5c7)
        IS(4, $0xc7c6c5c6)
        xchg    %eax, 0x14(%ebx)
        IS(4, $0xc7c6c5c7)
        mov     $0xcbcac9c8, %eax
        mov     $0x5, %ecx
        lock cmpxchg %ecx, 0x18(%ebx)
        IS(8, $5)
        mov     $0x11553344, %eax
        mov     $0xc7c6c5c7, %edx
        mov     %ebx, %esi
        mov     $7, %ebx
        mov     $8, %ecx
        cmpxchg8b 0x10(%esi)
        IS(0, $7)
        IS(4, $8)
        movups  (%esi), %xmm0
        movups  %xmm0, 0x20(%esi)
        IS(0x10, $0xf3f2f1f0)
        movq    %xmm0, 0x18(%esi)
        IS(12, $0xf7f6f5f4)
        fildl   0x10(%esi)
        fistpll 0x20(%esi)
        IS(0x14, $0)
        shll    %cl, 0x10(%esi)
        IS(0, $0x700)
        notl    -4(,%ecx,8)             # 60
        IS(60, $0x00010203)
        ret

/* Pushes and pops around 0. */
stack:  call    fill
        mov     %esp, saved_sp
        mov     $4, %esp
        push    $0x12345678
        push    $0x23456789             # at 0xfffffffc
        mov     %esp, %ecx
        pop     %eax
        pop     %edx
        mov     %esp, %esi
        mov     saved_sp, %esp
        IS(%ecx, $0xfffffffc)
        IS(%eax, $0x23456789)
        IS(%edx, $0x12345678)
        IS(%esi, $4)
        IS(0, $0x12345678)
        mov     0xfffffffc, %eax
        IS(%eax, $0x23456789)
        xor     %esp, %esp              # CALL and RET
        call    1f
1:      mov     %esp, %ecx
        mov     (%esp), %eax
        movl    $2f, (%esp)
        ret
2:      mov     %esp, %edx
        mov     saved_sp, %esp
        IS(%ecx, $0xfffffffc)
        IS(%eax, $1b)
        IS(%edx, $0)
        mov     $0x10, %esp             # all of them
        mov     $1, %eax
        mov     $2, %ecx
        mov     $0x55, %ebp
        mov     $8, %edi
        pusha
        mov     %esp, %ebx
        xor     %ecx, %ecx
        xor     %edi, %edi
        popa
        mov     %esp, %esi
        mov     saved_sp, %esp
        IS(%ecx, $2)
        IS(%edi, $8)
        IS(%esi, $0x10)
        IS(8, $2)
        IS(12, $1)
        mov     0xfffffff0, %eax
        IS(%eax, $8)
        mov     $8, %esp
        enter   $0x10, $0
        mov     %esp, %ecx
        mov     %ebp, %edx
        movl    $0x77, -8(%ebp)
        leave
        mov     %esp, %esi
        mov     saved_sp, %esp
        IS(%ecx, $0xfffffff4)
        IS(%edx, $4)
        IS(%esi, $8)
        IS(%ebp, $0x55)
        mov     0xfffffffc, %eax
        IS(%eax, $0x77)
        mov     $2, %esp
        pushw   $0x1234
        pushw   $0x4321
        mov     %esp, %ecx
        popw    %ax
        mov     $0x10, %edx
        popw    -0x10(%edx)             # 0x1234 again
        mov     saved_sp, %esp
        IS(%ecx, $0xfffffffe)
        movzwl  %ax, %eax
        IS(%eax, $0x4321)
        ret

strings:
        call    fill
        mov     $0xfffffffc, %esi
        mov     $BUF, %edi
        mov     $8, %ecx
        rep     movsb
        IS(%esi, $4)
        IS(BUF, $0xfffefdfc)
        IS(BUF+4, $0xc3c2c1c0)
        mov     $0xfffffff8, %esi
        mov     $BUF, %edi
        mov     $4, %ecx
        rep     movsl
        IS(%esi, $8)
        IS(BUF+4, $0xfffefdfc)
        IS(BUF+12, $0xc7c6c5c4)
        std
        mov     $4, %esi
        mov     $BUF + 8, %edi
        mov     $3, %ecx
        rep     movsl
        cld
        IS(%esi, $0xfffffff8)
        IS(BUF+8, $0xc7c6c5c4)
        IS(BUF, $0xfffefdfc)
        mov     $0xfffffffe, %edi
        mov     $0xaa, %eax
        mov     $4, %ecx
        rep     stosb
        IS(%edi, $2)
        IS(0, $0xc3c2aaaa)
        mov     0xfffffffc, %eax
        IS(%eax, $0xaaaafdfc)
        mov     $0xfffffffc, %edi
        mov     $0x01020304, %eax
        stosl
        stosl
        IS(%edi, $4)
        IS(0, $0x01020304)
        call    fill
        mov     $0xfffffffe, %esi
        lodsb
        lodsb
        lodsb
        movzbl  %al, %eax
        IS(%eax, $0xc0)
        IS(%esi, $1)
        mov     $0xfffffff0, %edi
        mov     $0xc3, %eax
        mov     $100, %ecx
        repne   scasb
        IS(%edi, $4)
        IS(%ecx, $80)
        mov     $0xfffffff0, %esi
        mov     $BUF + 0x100, %edi
        mov     $8, %ecx
        rep     movsl
        mov     $0xfffffff0, %esi
        mov     $BUF + 0x100, %edi
        mov     $33, %ecx
        repe    cmpsb
        IS(%esi, $0x11)
        IS(%ecx, $0)
        mov     $0xffffffff, %ebx
        mov     $2, %eax
        xlat
        IS(%eax, $0xc1)
        ret

/* 16-bit addressing */
bits16: call    fill
        movw    $0xbbaa, 0xfffe
        mov     $0x1fff0, %ebx
        mov     $0x20014, %esi
        mov     $0x3fffe, %edi
        addr16 mov 0x10(%bx), %eax
        IS(%eax, $0xc3c2c1c0)
        addr16 mov (%bx,%si), %eax
        IS(%eax, $0xc7c6c5c4)
        addr16 mov 0x12(%bx,%di), %eax
        IS(%eax, $0xc3c2c1c0)
        addr16 movzwl (%di), %eax
        IS(%eax, $0xbbaa)
        addr16 addb $1, -0x14(%si)
        IS(0, $0xc3c2c1c1)
        addr16 lea 0x20(%bx,%si), %eax
        IS(%eax, $0x24)
        addr16 lea -0x15(%si), %eax
        IS(%eax, $0xffff)
        mov     $0x5fffe, %esi
        mov     $0x70020, %edi
        mov     $0x80004, %ecx
        addr16 rep movsb
        IS(%esi, $0x50002)
        IS(%edi, $0x70024)
        IS(%ecx, $0x80000)
        IS(0x20, $0xc1c1bbaa)
        mov     $0x1fffe, %edi
        mov     $0x10003, %ecx
        mov     $0x99, %eax
        addr16 rep stosb
        IS(%edi, $0x10001)
        IS(0, $0xc3c2c199)
        mov     $0x10001, %ecx
        xor     %eax, %eax
1:      inc     %eax
        addr16 loop 1b
        IS(%eax, $1)
        IS(%ecx, $0x10000)
        addr16 jecxz 2f                 # JCXZ
        inc     %eax
2:      IS(%eax, $1)
        ret

/* Code up to 4 GiB and on from 0, and jumps either way. */
flow:   mov     $0xfffffff0, %edi
        movl    $0x000000b8, (%edi)     # mov eax, 0x11000000
        movl    $0x40404011, 4(%edi)    # inc eax, six times
        movl    $0x40404040, 8(%edi)
        movl    $0x40404040, 12(%edi)
        movl    $0x0000c340, 0          # inc eax; ret
        mov     $0xfffffff0, %ebx
        call    *%ebx
        IS(%eax, $0x1100000c)
        call    -16
        IS(%eax, $0x1100000c)
        movb    $0xe9, 11(%edi)         # jmp one
        movl    $one, 12(%edi)
        call    *%ebx
        IS(%eax, $0x77)
        movb    $0x75, 11(%edi)         # jnz 2
        movb    $5, 12(%edi)
        movb    $0xb0, 2                # mov al, 0x22; ret
        movb    $0x22, 3
        movb    $0xc3, 4
        call    *%ebx
        IS(%eax, $0x11000022)
        call    *%ebx
        IS(%eax, $0x11000022)
        movw    $0x40cd, 14(%edi)       # an interrupt, which comes back to 0
        movl    $0x0000c340, 0
        lea     14(%edi), %ebx
        xor     %eax, %eax
        call    *%ebx
        IS(%eax, $0x101)
        ret
one:    mov     $0x77, %eax
        ret

/* ---- 64-bit code with 32-bit addresses ---- */

        .code64
#define WAS(a, b) WAS_ __LINE__, a, b
        .macro  WAS_ line, a, b
        movl    $\line, line
        push    %rax
        movabs  $\b, %rax
        xchg    %rax, (%rsp)
        pushq   \a
        call    compare64
        .endm

compare64:
        push    %rax
        mov     16(%rsp), %rax
        incl    CHECKS
        cmp     24(%rsp), %rax
        je      1f
        incl    FAILED
        cmpl    $1, FAILED
        jne     1f
        mov     %rax, FOUND
        mov     24(%rsp), %rax
        mov     %rax, WANTED
        mov     line, %eax
        mov     %eax, FIRST_LINE
1:      pop     %rax
        ret     $16

/* What is longer than the rest of the page goes on above 4 GiB: only the address of its first byte is cut. */
prefixed:
        movabs  $0x5555fffffff0, %rbx
        mov     0x12(%ebx), %eax
        WAS(%rax, 0xc5c4c3c2)
        mov     0xe(%ebx), %eax
        WAS(%rax, 0xeeeefffe)
        mov     0xc(%ebx), %rax
        WAS(%rax, 0xeeeeeeeefffefdfc)
        mov     0x10(%ebx), %rax
        WAS(%rax, 0xc7c6c5c4c3c2c1c0)
        lea     0x12(%ebx), %rax
        WAS(%rax, 2)
        lea     (%ebx,%ebx,8), %rax
        WAS(%rax, 0xffffff70)
        lea     -0x20(%ebx), %ax
        WAS(%rax, 0xffffffd0)
        movups  8(%ebx), %xmm0
        movq    %xmm0, %rax
        WAS(%rax, 0xfffefdfcfbfaf9f8)
        movhlps %xmm0, %xmm0
        movq    %xmm0, %rax
        WAS(%rax, 0xeeeeeeeeeeeeeeee)
        fildll  0xd(%ebx)
        fistpll BUF
        WAS(BUF, 0xeeeeeeeeeefffefd)
        pushq   0x18(%ebx)
        pop     %rax
        WAS(%rax, 0xcfcecdcccbcac9c8)
        mov     $0x80, %eax
        btq     %rax, (%ebx)            # 0xfffffff0 + 16
        sbb     %rax, %rax
        WAS(%rax, 0)
        mov     $0x86, %eax
        btq     %rax, (%ebx)
        sbb     %rax, %rax
        WAS(%rax, -1)
        mov     %fs:0x20(%ebx), %rax    # FS is at 0xfffffff0: all of the sum counts
        WAS(%rax, 0xeeeeeeeeeeeeeeee)
        mov     $2, %eax
        addr32 xlatb
        WAS(%rax, 0xf2)

        addl    $1, 0xe(%ebx)           # read, changed and written
        mov     0xc(%ebx), %rax
        WAS(%rax, 0xeeeeeeeefffffdfc)
        lock addl $1, 0xe(%ebx)
        mov     0xc(%ebx), %rax
        WAS(%rax, 0xeeeeeeef0000fdfc)
        mov     $0x0000fdfc, %eax
        mov     $0xeeeeeeef, %edx
        mov     %rbx, %rsi
        mov     $0x03020100, %ebx
        mov     $0x07060504, %ecx
        lock cmpxchg8b 0xc(%esi)
        mov     0xc(%esi), %rax
        WAS(%rax, 0x0706050403020100)
        movups  %xmm0, 8(%esi)
        mov     0xc(%esi), %rax
        WAS(%rax, 0xeeeeeeeeeeeeeeee)
        mov     8(%esi), %eax
        WAS(%rax, 0xeeeeeeee)
        mov     0x10(%esi), %eax
        WAS(%rax, 0xc3c2c1c0)

        movabs  $0x3333fffffff4, %rsi   # strings: the counts and pointers too have 32 bits
        movabs  $0x444400020000, %rdi
        movabs  $0x555500000010, %rcx
        addr32 rep movsb
        WAS(%rsi, 4)
        WAS(%rdi, 0x20010)
        WAS(%rcx, 0)
        WAS(BUF, 0xeeeeeeeef7f6f5f4)
        WAS(BUF+8, 0xc3c2c1c0eeeeeeee)
        movabs  $0x3333fffffffc, %rsi
        addr32 lodsq
        WAS(%rsi, 4)
        WAS(%rax, 0xeeeeeeeeeeeeeeee)
        movabs  $0x3333fffffffc, %rdi
        mov     $3, %ecx
        mov     $0x5a, %eax
        addr32 rep stosl
        WAS(%rdi, 8)
        mov     4, %eax
        WAS(%rax, 0x5a)
        movabs  $0x100000001, %rcx
        xor     %eax, %eax
1:      inc     %eax
        addr32 loop 1b
        WAS(%rax, 1)
        WAS(%rcx, 0)
        movabs  $0x100000000, %rcx
        jecxz   1f
        inc     %eax
1:      WAS(%rax, 1)
        ret

on_int: add     $0x100, %eax
        iretq

test:
        mov     $on_int, %eax
        mov     %ax, IDT + 16 * 0x40
        movw    $SEL_CODE64, IDT + 16 * 0x40 + 2
        movl    $0x8e00, IDT + 16 * 0x40 + 4
        movq    $PD_LAST + 7, PDPT + 24
        movq    $PT_LAST + 7, PD_LAST + 511 * 8
        movq    $LAST + 7, PT_LAST + 511 * 8
        movq    $PD_OVER + 7, PDPT + 32
        movq    $PT_OVER + 7, PD_OVER
        movq    $OVER + 7, PT_OVER
        movabs  $0xffcf93fff000ffff, %rdx
        mov     %rdx, gdt + 0x60                # base 0xfffff000
        movabs  $0x00cf93000010ffff, %rdx
        mov     %rdx, gdt + 0x68                # base 0x10
        mov     $3, %ebp
again:  mov     $OVER, %edi
        mov     $0x1000, %ecx
        mov     $0xee, %al
        rep     stosb
        push    %rbp
        lcall   *far_cases
        pop     %rbp
        mov     OVER, %rax
        WAS(%rax, 0xeeeeeeeeeeeeeeee)
        lcall   *far_fill
        mov     $0xc0000100, %ecx
        mov     $0xfffffff0, %eax
        xor     %edx, %edx
        wrmsr
        call    prefixed
        dec     %ebp
        jnz     again
        END

        .balign 8
far_cases: .long cases, SEL_CODE32
far_fill: .long far_fill32, SEL_CODE32
        .code32
far_fill32:
        call    fill
        lret
