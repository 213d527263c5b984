/* BMI1 and BMI2 */
//= rax=0xf0 rbx=0x10 rcx=0x1f rdx=0xe0 rsi=0x12 rdi=0xabc r8=0x0a0b0c r9=0xc0b00a00 r10=0xfe r11=0x1 r12=0x80000000 r13=0xffffffffffffffff r14=0x4
#include "long64.inc"

test:
        mov     $0x0f, %r15d
        mov     $0xff, %eax
        andn    %rax, %r15, %rax
        mov     $0xf0, %edx
        blsi    %rdx, %rbx
        blsmsk  %rdx, %rcx
        blsr    %rdx, %rdx
        mov     $0x0808, %esi
        mov     $0x1234, %edi
        bextr   %esi, %edi, %esi
        mov     $0xfabc, %edi
        mov     $12, %r8d
        bzhi    %r8, %rdi, %rdi
        mov     $0xf0f0f0, %r9d
        mov     $0xabc, %r8d
        mov     $0x0f0f0f, %r10d
        pdep    %r10d, %r8d, %r8d
        mov     $0xc0b00a00, %r9d
        mov     $-1, %r10d
        pext    %r10d, %r9d, %r9d
        mov     $0x7f, %r10d
        mov     $1, %r11d
        shlx    %r11, %r10, %r10
        shrx    %r11d, %r11d, %r12d
        rorx    $1, %r11d, %r12d
        mov     $-1, %rdx
        mulx    %rdx, %r14, %r13
        mov     $-1, %r13
        sarx    %r11, %r13, %r13
        mov     $4, %r14d
        mov     $0xe0, %edx
        END
