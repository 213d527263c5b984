/* Aligned operands of eight bytes are stored and loaded at once, whatever does it (SDM Vol. 3A 9.1.1) */
//- cpus: 2
//= mem32[0x500]=0 mem32[0x504]=1 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#define CPUS  2
#define READS 3000
#include "atomic64.inc"

s_mov:  mov     %rax, (%rdi)
        ret
s_xchg: xchg    %rax, (%rdi)
        ret
s_nt:   movnti  %rax, (%rdi)
        ret
s_not:  notq    (%rdi)
        ret
s_lock_not:
        lock notq (%rdi)
        ret
s_sub:  mov     (%rdi), %rax
        not     %rax
        sub     (%rdi), %rax            # 1 or -1
        add     %rax, (%rdi)
        ret
s_cmpxchg8b:
        mov     %eax, %ebx
        mov     %eax, %ecx
        mov     (%rdi), %eax
        mov     %eax, %edx
        cmpxchg8b (%rdi)
        ret
s_push: mov     %rsp, %rsi
        lea     8(%rdi), %rsp
        push    %rax
        mov     %rsi, %rsp
        ret
s_pop:  push    %rax
        popq    (%rdi)
        ret
s_stos: stosq
        ret
s_rep_stos:
        mov     $1, %ecx
        rep     stosq
        ret
s_rep_stos_more:
        mov     $4, %ecx
        rep     stosq
        ret
s_movs: mov     %rax, OWN
        mov     $OWN, %esi
        movsq
        ret
s_rep_movs:
        mov     %rax, OWN
        mov     $OWN, %esi
        mov     $2, %ecx
        rep     movsq
        ret
s_movq: movq    %rax, %xmm0
        movq    %xmm0, (%rdi)
        ret
s_movlps:
        movq    %rax, %xmm0
        movlps  %xmm0, (%rdi)
        ret
s_movhps:
        movq    %rax, %xmm0
        punpcklqdq %xmm0, %xmm0
        movhps  %xmm0, (%rdi)
        ret
s_pextrq:
        movq    %rax, %xmm0
        pextrq  $0, %xmm0, (%rdi)
        ret
s_mmx:  movq    %rax, %mm0
        movq    %mm0, (%rdi)
        emms
        ret
s_movntq:
        movq    %rax, %mm0
        movntq  %mm0, (%rdi)
        emms
        ret
s_fistp:
        mov     %rax, OWN
        fildll  OWN
        fistpll (%rdi)
        ret

l_mov:  mov     (%rdi), %rax
        jmp     same
l_add:  xor     %eax, %eax
        add     (%rdi), %rax
        jmp     same
l_cmov: xor     %eax, %eax
        cmovz   (%rdi), %rax
        jmp     same
l_xadd: xor     %eax, %eax
        lock xadd %rax, (%rdi)
        jmp     same
l_cmpxchg8b:
        xor     %eax, %eax
        xor     %edx, %edx
        xor     %ebx, %ebx
        xor     %ecx, %ecx
        lock cmpxchg8b (%rdi)
        shl     $32, %rdx
        or      %rdx, %rax
        jmp     same
l_push: pushq   (%rdi)
        pop     %rax
        jmp     same
l_pop:  mov     %rsp, %rsi
        mov     %rdi, %rsp
        pop     %rax
        mov     %rsi, %rsp
        jmp     same
l_lods: mov     %rdi, %rsi
        lodsq
        jmp     same
l_rep_movs:
        mov     %rdi, %rsi
        mov     $MINE, %edi
        mov     $1, %ecx
        rep     movsq
        mov     MINE, %rax
        jmp     same
l_movq: movq    (%rdi), %xmm0
        movq    %xmm0, %rax
        jmp     same
l_movhps:
        movhps  (%rdi), %xmm0
        movhlps %xmm0, %xmm0
        movq    %xmm0, %rax
        jmp     same
l_movddup:
        movddup (%rdi), %xmm0
        movq    %xmm0, %rax
        jmp     same
l_pinsrq:
        pinsrq  $0, (%rdi), %xmm0
        movq    %xmm0, %rax
        jmp     same
l_mmx:  pxor    %mm0, %mm0
        paddd   (%rdi), %mm0
        movq    %mm0, %rax
        emms
        jmp     same
l_fild: fildll  (%rdi)
        fistpll MINE
        mov     MINE, %rax
same:   mov     %rax, %rdx              # 0 or -1
        sar     $63, %rdx
        cmp     %rax, %rdx
        ret

        .balign 4
stores: .long   s_mov, s_xchg, s_nt, s_not, s_lock_not, s_sub, s_cmpxchg8b, s_push, s_pop, s_stos, s_rep_stos, s_rep_stos_more, s_movs, s_rep_movs
        .long   s_movq, s_movlps, s_movhps, s_pextrq, s_mmx, s_movntq, s_fistp
stores_end:
loads:  .long   l_mov, l_add, l_cmov, l_xadd, l_cmpxchg8b, l_push, l_pop, l_lods, l_rep_movs, l_movq, l_movhps, l_movddup, l_pinsrq, l_mmx, l_fild
loads_end:
