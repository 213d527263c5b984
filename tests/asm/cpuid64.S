/* CPUID: vendor, the highest leaf repeats for what is above it */
//= rbx=0x756e6547 rdx=0x49656e69 rcx=0x6c65746e
#include "long64.inc"

test:
        xor     %eax, %eax
        cpuid
        END
