/*
 * Addresses of 32 and 16 bits that wrap, in compatibility mode and by prefix in 64-bit mode: effective addresses are cut before a 64-bit
 * base is added, linear ones to 32 bits (SDM Vol. 1 3.3.7.1). The last page below 4 GiB, the first page, and the one above 4 GiB, which only
 * 64-bit code may reach, have different contents.
 */
//= mem32[0x500]=0 mem32[0x504]=435 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "long64.inc"

#include "wrap32.inc"

#define OVER    0x41000         /* the frame above 4 GiB, all 0xee */
#define PD_LAST 0x42000
#define PT_LAST 0x43000
#define PD_OVER 0x44000
#define PT_OVER 0x45000

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
        lcall   *far_wraps
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
far_wraps: .long far_wraps32, SEL_CODE32
far_fill: .long far_fill32, SEL_CODE32
        .code32
far_wraps32:
        call    wraps
        lret
far_fill32:
        call    fill
        lret
