/* Changing EFER.LME with paging on, CR0.PG without PE, CR4.PAE off in long mode: #GP(0) */
//- qemu: TCG does not check these
//= n_exc=5 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 exc4=13:0
#include "long64.inc"

test:
        mov     $0xc0000080, %ecx
        rdmsr
        and     $~0x100, %eax
        FAULTS  wrmsr
        mov     %cr0, %rax
        and     $~1, %rax
        FAULTS  mov %rax, %cr0          # PE off, PG on
        mov     %cr4, %rax
        btr     $5, %rax
        FAULTS  mov %rax, %cr4
        mov     %cr0, %rax
        bts     $29, %rax               # NW without CD
        FAULTS  mov %rax, %cr0
        mov     %cr0, %rax
        bts     $32, %rax
        FAULTS  mov %rax, %cr0
        END
