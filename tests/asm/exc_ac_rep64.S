/* Alignment check of repeated string instructions: by element, not by what is moved in one go */
//- qemu: TCG has no alignment checks
//= n_exc=1 exc0=17:0 rsi=0x20009 rdi=0x21009 rcx=4
#include "long64.inc"

test:
        mov     %cr0, %rax
        bts     $18, %rax
        mov     %rax, %cr0
        TO_USER
        pushf
        orl     $0x40000, (%rsp)
        popf
        mov     $0x20001, %esi
        mov     $0x21001, %edi
        mov     $8, %ecx
        rep movsb
        mov     $0x22004, %edi
        mov     $2, %ecx
        rep stosl
        mov     $0x21009, %edi
        mov     $4, %ecx
        FAULTS  rep movsw
        END_USER
