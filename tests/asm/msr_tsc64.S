/* TSC runs forward; RDTSC at CPL 3 is #GP under CR4.TSD */
//= n_exc=1 exc0=13:0 rbx=1
#include "long64.inc"

test:
        rdtsc
        shl     $32, %rdx
        lea     (%rdx,%rax), %rsi
        mov     $1000, %ecx
1:      loop    1b
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        cmp     %rsi, %rax
        seta    %bl
        mov     %cr4, %rax
        bts     $2, %rax
        mov     %rax, %cr4
        TO_USER
        FAULTS  rdtsc
        END_USER
