/* Unknown MSRs and bad values: #GP(0) */
//- qemu: TCG ignores unknown MSRs and takes any base
//= n_exc=5 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 exc4=13:0
#include "long64.inc"

test:
        mov     $0x12345678, %ecx
        FAULTS  rdmsr
        FAULTS  wrmsr
        mov     $0xc0000100, %ecx       # FS base, not canonical
        mov     $0x00008000, %edx
        FAULTS  wrmsr
        mov     $0xc0000082, %ecx       # LSTAR
        FAULTS  wrmsr
        mov     $0xc0000080, %ecx       # EFER, reserved
        rdmsr
        or      $0x80, %edx
        FAULTS  wrmsr
        END
