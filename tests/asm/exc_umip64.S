/* UMIP: SGDT, SIDT, SLDT, SMSW, STR are #GP(0) outside CPL 0 */
//= n_exc=5 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 exc4=13:0 rbx=0x40
#include "long64.inc"

test:
        str     %bx
        mov     %cr4, %rax
        bts     $11, %rax
        mov     %rax, %cr4
        sgdt    0x20000
        TO_USER
        FAULTS  sgdt 0x20000
        FAULTS  sidt 0x20000
        FAULTS  sldt %eax
        FAULTS  smsw %eax
        FAULTS  str %eax
        END_USER
