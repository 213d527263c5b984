/*
 * So are aligned operands of sixteen bytes where CPUID tells of AVX (SDM Vol. 3A 9.1.1), with the vector moves that it names, and with CMPXCHG16B
 * everywhere.
 */
//- qemu: TCG moves them by halves
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=1 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS  2
#define READS 50000
#include "atomic64.inc"

        .macro  ALL_OF_XMM0
        movq    %rax, %xmm0
        punpcklqdq %xmm0, %xmm0
        .endm

s_movaps:
        ALL_OF_XMM0
        movaps  %xmm0, (%rdi)
        ret
s_movapd:
        ALL_OF_XMM0
        movapd  %xmm0, (%rdi)
        ret
s_movdqa:
        ALL_OF_XMM0
        movdqa  %xmm0, (%rdi)
        ret
s_cmpxchg16b:
        mov     %rax, %rbx
        mov     %rax, %rcx
        mov     (%rdi), %rax
        mov     %rax, %rdx
        lock cmpxchg16b (%rdi)
        ret

l_movaps:
        movaps  (%rdi), %xmm0
        jmp     same
l_movapd:
        movapd  (%rdi), %xmm0
        jmp     same
l_movdqa:
        movdqa  (%rdi), %xmm0
        jmp     same
l_cmpxchg16b:
        xor     %eax, %eax
        xor     %edx, %edx
        xor     %ebx, %ebx
        xor     %ecx, %ecx
        lock cmpxchg16b (%rdi)
        cmp     %rax, %rdx
        ret
same:   movq    %xmm0, %rax
        movhlps %xmm0, %xmm0
        movq    %xmm0, %rdx
        cmp     %rax, %rdx
        ret

        .balign 4
stores: .long   s_movaps, s_movapd, s_movdqa, s_cmpxchg16b
stores_end:
loads:  .long   l_movaps, l_movapd, l_movdqa, l_cmpxchg16b
loads_end:
