/* INVPCID: each type drops what it names; wrong types and descriptors: #GP(0) */
//- qemu: 7.2 has no INVPCID
//= n_exc=4 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 rax=0x22 rbx=0x33 rdx=0x44
#include "long64.inc"

#define PTE(lin) PT + (lin) / 0x1000 * 8

test:
        movl    $0x11, 0x30000
        movl    $0x22, 0x31000
        movl    $0x33, 0x32000
        movl    $0x44, 0x33000
        mov     0x30000, %eax
        movl    $0x31007, PTE(0x30000)
        movq    $0, BUF
        movq    $0x30000, BUF + 8
        xor     %ecx, %ecx
        invpcid BUF, %rcx               # one address
        mov     0x30000, %eax
        movl    $0x32007, PTE(0x30000)
        mov     $2, %ecx
        invpcid BUF, %rcx               # all
        mov     0x30000, %ebx
        movl    $0x33007, PTE(0x30000)
        mov     $1, %ecx
        invpcid BUF, %rcx               # one PCID
        mov     0x30000, %edx
        mov     $4, %ecx
        FAULTS  invpcid BUF, %rcx
        movq    $1, BUF
        mov     $1, %ecx
        FAULTS  invpcid BUF, %rcx       # CR4.PCIDE is clear
        movq    $0x1000, BUF
        FAULTS  invpcid BUF, %rcx
        movq    $0, BUF
        btsq    $47, BUF + 8
        xor     %ecx, %ecx
        FAULTS  invpcid BUF, %rcx
        END
