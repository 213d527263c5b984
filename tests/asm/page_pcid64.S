/* PCID: bit 63 of CR3, INVPCID, and what CR4.PCIDE asks for */
//- qemu: TCG has no PCIDs
//= n_exc=3 exc0=13:0 exc1=13:0 exc2=13:0 rax=5 rbx=2
#include "long64.inc"

test:
        mov     %cr4, %rdx
        bts     $17, %rdx
        mov     %cr3, %rcx
        mov     %rcx, %rsi
        or      $5, %rcx
        mov     %rcx, %cr3
        FAULTS  mov %rdx, %cr4          # CR3's PCID must be 0
        mov     %rsi, %cr3
        mov     %rdx, %cr4
        movl    $2, 0x21000
        mov     0x20000, %edi
        bts     $63, %rcx
        mov     %rcx, %cr3
        mov     %cr3, %rax
        movq    $0x21007, PT + 0x20 * 8
        movq    $5, 0x30000             # INVPCID type 0: one address of PCID 5
        movq    $0x20000, 0x30008
        xor     %edi, %edi
        invpcid 0x30000, %rdi
        mov     0x20000, %ebx
        mov     $4, %edi
        FAULTS  invpcid 0x30000, %rdi   # no such type
        movq    $0x1005, 0x30000
        xor     %edi, %edi
        FAULTS  invpcid 0x30000, %rdi   # PCID of more than 12 bits
        and     $0xfff, %eax
        END
