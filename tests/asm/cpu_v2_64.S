/* x86-64-v2: no XSAVE, so no AVX; no SMEP, SMAP, FSGSBASE, PCIDs, UMIP in CR4; what tells of flaws and predictors is not there */
//- cpu: x86-64-v2
//- qemu: another model
//= n_exc=12 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 exc4=13:0 exc5=13:0 exc6=6:0 exc7=6:0 exc8=6:0 exc9=13:0 exc10=13:0 exc11=13:0
//= rax=0 rsi=3 rdi=0 rbp=1
#include "long64.inc"

        .macro  SETS bit
        mov     %cr4, %rax
        bts     $\bit, %rax
        FAULTS  mov %rax, %cr4
        .endm

test:
        SETS    18                      # OSXSAVE
        SETS    20                      # SMEP
        SETS    21                      # SMAP
        SETS    16                      # FSGSBASE
        SETS    17                      # PCIDE
        SETS    11                      # UMIP
        xor     %ecx, %ecx
        FAULTS  xgetbv
        FAULTS  vpxor %xmm0, %xmm0, %xmm0
        FAULTS  vpaddd %ymm0, %ymm0, %ymm0
        mov     $0x48, %ecx
        FAULTS  rdmsr                   # SPEC_CTRL
        mov     $0x10a, %ecx
        FAULTS  rdmsr                   # ARCH_CAPABILITIES
        mov     $0x6e0, %ecx
        FAULTS  rdmsr                   # TSC_DEADLINE
        mov     $0x15, %edx
        popcnt  %edx, %esi              # 3: SSE4.2's age
        mov     $1, %eax
        cpuid
        xor     %ebp, %ebp
        bt      $20, %ecx               # SSE4.2
        setc    %bpl
        and     $0x1c001000, %ecx       # F16C, AVX, OSXSAVE, XSAVE, FMA
        mov     %ecx, %edi
        xor     %eax, %eax
        END
