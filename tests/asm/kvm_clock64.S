/* KVM's clock: announced, goes with the TSC, goes on when the TSC is moved, and is left alone when it is off */
//- qemu: TCG announces itself in place of KVM
//= n_exc=0 r8=0x4b4d564b r9=0x564b4d56 r10=0x4d r11&0x1000009=0x1000009 rbp=0x7f
//= mem32[0x50c]=0 mem64[0x510]=0 mem64[0x518]=0
#include "long64.inc"

#define CLOCK SCRATCH + 8               /* aligned to 4 only */

test:
        mov     $0x40000000, %eax
        cpuid
        mov     %rbx, %r8
        mov     %rcx, %r9
        mov     %rdx, %r10
        mov     $0x40000001, %eax
        cpuid
        mov     %rax, %r11
        movl    $-1, CLOCK              # an update that never ends, as it would seem
        mov     $0x4b564d01, %ecx       # MSR_KVM_SYSTEM_TIME_NEW
        mov     $CLOCK + 1, %eax
        xor     %edx, %edx
        wrmsr
        call    now
        mov     %rax, %r12
        call    now
        cmp     %r12, %rax
        jb      1f
        or      $1, %ebp
1:      testb   $1, CLOCK + 29          # one CPU: its TSC is everybody's
        jz      1f
        or      $2, %ebp
1:      mov     %rax, %r12
        mov     CLOCK, %r13d
        mov     $0x3b, %ecx             # TSC_ADJUST: 2^40 ns, a quarter of an hour
        xor     %eax, %eax
        mov     $0x100, %edx
        wrmsr
        call    now
        sub     %r12, %rax
        shr     $39, %rax
        jnz     1f
        or      $4, %ebp
1:      mov     CLOCK, %eax
        sub     %r13d, %eax
        cmp     $2, %eax
        jne     1f
        or      $8, %ebp
1:      cmpl    $0x100, CLOCK + 12      # TSC at time 0
        jne     1f
        or      $16, %ebp
1:      mov     $0x12, %ecx             # the same register, by its old name
        rdmsr
        cmp     $CLOCK + 1, %eax
        jne     1f
        or      $32, %ebp
1:      xor     %eax, %eax
        wrmsr
        mov     CLOCK, %r13d
        movl    $0, CLOCK + 4
        movq    $0, CLOCK + 8
        mov     $0x3b, %ecx
        mov     $0x200, %edx
        wrmsr
        cmp     CLOCK, %r13d
        jne     1f
        or      $64, %ebp
1:      END

/* Nanoseconds since power-on in rax, as pvclock-abi.h has it. Clobbers rcx, rdx, rsi. */
now:
        mov     CLOCK, %esi
        test    $1, %esi
        jnz     now
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        sub     CLOCK + 8, %rax
        mov     CLOCK + 28, %cl
        test    %cl, %cl
        js      1f
        shl     %cl, %rax
        jmp     2f
1:      neg     %cl
        shr     %cl, %rax
2:      mov     CLOCK + 24, %ecx
        mul     %rcx
        shrd    $32, %rdx, %rax
        add     CLOCK + 16, %rax
        cmp     CLOCK, %esi
        jne     now
        ret
