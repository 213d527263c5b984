/* To protected mode and back through far jumps */
//= rax=0x11 rbx=0x8 rcx=0 cs=0
#include "real16.inc"

test:
        lgdtl   gdt_ptr
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $SEL_CODE32, $1f
        .code32
1:      mov     %cs, %ebx
        ljmp    $SEL_CODE16, $2f
        .code16
2:      mov     %cr0, %eax
        and     $~1, %al
        mov     %eax, %cr0
        ljmpw   $0, $3f
3:      mov     %cs, %cx
        mov     $0x11, %eax
        END
