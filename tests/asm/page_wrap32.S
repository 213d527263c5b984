/* Linear addresses of 32 bits wrap: data, an instruction and a loop across the end of the space, through segments based near it */
//= n_exc=0 rax=0x11223344 rcx=0x1122 rdx=0x3344 rbx=0 rsi=0x99aabbcc rdi=0x99aabbcc rbp=0xddeeff00
#include "prot32.inc"

#define PT_TOP  0x12000
#define TOP     0x20000 /* what is at 0xfffff000 */
#define BOTTOM  0x21000 /* and at 0 */
#define SEL_TOP 0x68

test:
        PAGING32
        movl    $PT_TOP + 7, PD32 + 1023 * 4
        movl    $TOP + 7, PT_TOP + 1023 * 4
        movl    $BOTTOM + 7, PT32
        mov     %cr3, %eax
        mov     %eax, %cr3
        movl    $0xf000ffff, gdt + SEL_FREE     # code and data from 0xfffff000 on, 4 GiB
        movl    $0xffcf9bff, gdt + SEL_FREE + 4
        movl    $0xf000ffff, gdt + SEL_TOP
        movl    $0xffcf93ff, gdt + SEL_TOP + 4
        mov     $SEL_TOP, %eax
        mov     %eax, %fs
        movl    $0x11223344, %fs:0xffe          # two bytes on each side
        mov     %fs:0xffe, %eax
        movzwl  TOP + 0xffe, %edx
        movzwl  BOTTOM, %ecx

        movl    $0xbbccbe90, %fs:0xffc          # nop; mov $0x99aabbcc, %esi; lret
        movl    $0x00cb99aa, %fs:0x1000
        lcall   $SEL_FREE, $0xffc
        mov     %esi, %edi
        xor     %esi, %esi
        lcall   $SEL_FREE, $0xffc               # and once more, from what was kept of it

        movl    $0x90909090, %fs:0xffc          # nop, four times; mov $0xddeeff00, %ebp; lret
        movl    $0xeeff00bd, %fs:0x1000
        movl    $0x0000cbdd, %fs:0x1004
        lcall   $SEL_FREE, $0xffc

        movl    $0x754b9090, %fs:0xffc          # nop; 1: nop; dec %ebx; jnz 1b; lret
        movl    $0x0000cbfc, %fs:0x1000
        mov     $100000, %ebx
        lcall   $SEL_FREE, $0xffc
        END
