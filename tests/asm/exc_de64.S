/* #DE: by zero and overflow, registers untouched */
//= n_exc=4 exc0=0:0 exc0.at=0 exc1=0:0 exc2=0:0 exc3=0:0 rax=0x8000000000000000 rdx=0xffffffffffffffff rcx=0xffffffffffffffff
#include "long64.inc"

test:
        xor     %ecx, %ecx
        mov     $100, %eax
        FAULTS  div %ecx
        mov     $0x1000, %eax
        mov     $2, %cl
        FAULTS  div %cl                 # 0x800 does not fit AL
        FAULTS  idiv %cl
        mov     $0x8000000000000000, %rax
        mov     $-1, %rdx
        mov     $-1, %rcx
        FAULTS  idiv %rcx               # 2^63
        END
