/* PUSHA with an SP of 7 to 15 and odd: #GP(0), and nothing written (SDM Vol. 2B, PUSHA); an even one wraps behind 0 */
//- qemu: TCG does not check
//= n_exc=3 exc0=13:0 exc1=13:0 exc2=13:0 mem16[0x20005]=0 mem16[0x2000d]=0 mem16[0x2fff4]=7
#include "prot32.inc"

test:
        mov     $7, %edi
        push    $0
        push    $0
        push    $0
        push    $0
        push    $0x2000
        push    $7
        push    $0x23002                # IOPL 3
        push    $0
        push    $1f
        movl    $2f, recover
        iretl
        .code16
1:      pusha
2:      movl    $3f, recover
        mov     $15, %sp
        pusha
3:      movl    $4f, recover
        mov     $4, %sp
        pusha
        hlt                             # #GP ends it
4:      int     $0x30
