/* x86-64-v3: AVX2, BMI and LZCNT are there, and the rest is not */
//- cpu: x86-64-v3
//- qemu: another model
//= n_exc=4 exc0=13:0 exc1=13:0 exc2=6:0 exc3=13:0 rax=0 rbx=0x66 rcx=23 rdx=0 rsi=0xff rdi=1 rbp=0
#include "long64.inc"

        .macro  SETS bit
        mov     %cr4, %rax
        bts     $\bit, %rax
        FAULTS  mov %rax, %cr4
        .endm

test:
        SETS    17                      # PCIDE
        SETS    21                      # SMAP
        mov     %cr4, %rax
        bts     $18, %rax               # OSXSAVE
        bts     $16, %rax               # FSGSBASE
        mov     %rax, %cr4
        FAULTS  .byte 0x0f, 0x01, 0xca  # CLAC
        mov     $7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        xsetbv
        mov     $1, %ecx
        FAULTS  xgetbv                  # ECX = 1 is another feature
        mov     $0x66, %ebx
        vmovd   %ebx, %xmm0
        vpbroadcastd %xmm0, %ymm1
        vextracti128 $1, %ymm1, %xmm2
        vmovd   %xmm2, %ebx
        mov     $0x100, %edx
        lzcnt   %edx, %ecx
        blsmsk  %edx, %esi
        shr     $1, %esi
        tzcnt   %edx, %edi
        shr     $3, %edi
        xor     %eax, %eax
        xor     %edx, %edx
        vzeroupper
        END
