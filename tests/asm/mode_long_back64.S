/* 64-bit mode to compatibility mode, paging off, EFER.LME off, protected mode */
//= rax=0x500 rbx=0 rcx=0xc0000080 efer&0x500=0 cs=0x8 rsi=1
#include "long64.inc"

test:
        mov     $0xc0000080, %ecx
        rdmsr
        and     $0x500, %eax
        mov     %eax, %edi
        TO_COMPAT
        mov     %cr0, %eax
        and     $0x7fffffff, %eax
        mov     %eax, %cr0
        rdmsr
        mov     %eax, %ebx
        and     $0x400, %ebx            # LMA is gone
        and     $~0x100, %eax
        wrmsr
        mov     $1, %esi
        mov     %edi, %eax
        END
