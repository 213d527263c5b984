/* A null segment: loading is fine, using it is #GP(0); CS and SS may not be null */
//- qemu: TCG lets null segments be used
//= n_exc=3 exc0=13:0 exc1=13:0 exc2=13:0 fs=0
#include "prot32.inc"

test:
        xor     %eax, %eax
        mov     %eax, %fs
        FAULTS  mov %fs:0x500, %ecx
        FAULTS  mov %eax, %ss
        FAULTS  .byte 0xea, 0, 0, 0, 0, 0, 0
        END
