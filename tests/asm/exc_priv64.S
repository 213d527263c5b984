/* Privileged instructions at CPL 3 are #GP(0) */
//= n_exc=20 exc0=13:0 exc1=13:0 exc2=13:0 exc3=13:0 exc4=13:0 exc5=13:0 exc6=13:0 exc7=13:0 exc8=13:0 exc9=13:0 exc10=13:0 exc11=13:0 exc12=13:0 exc13=13:0 exc14=13:0 exc15=13:0 exc16=13:0 exc17=13:0 exc18=13:0 exc19=13:0 exc19.at=0
#include "long64.inc"

test:
        TO_USER
        mov     $0x10, %ecx
        FAULTS  hlt
        FAULTS  cli
        FAULTS  sti
        FAULTS  mov %cr0, %rax
        FAULTS  mov %rax, %cr3
        FAULTS  mov %dr7, %rax
        FAULTS  mov %rax, %dr7
        FAULTS  rdmsr
        FAULTS  wrmsr
        FAULTS  clts
        FAULTS  invlpg (%rax)
        FAULTS  invd
        FAULTS  wbinvd
        FAULTS  lgdt 0x20000
        FAULTS  lidt 0x20000
        FAULTS  lldt %ax
        FAULTS  ltr %ax
        FAULTS  lmsw %ax
        FAULTS  swapgs
        FAULTS  sysretq
        END_USER
