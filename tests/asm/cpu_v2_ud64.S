/*
 * What x86-64-v2 has not and a CPU under KVM would do all the same: #UD for BMI, MOVBE, RDRAND, RDPID, AES; LZCNT and TZCNT are BSR and BSF, which
 * leave the destination alone where there is no bit
 */
//- cpu: x86-64-v2
//- qemu: another model
//= n_exc=9 exc0=6:0 exc1=6:0 exc2=6:0 exc3=6:0 exc4=6:0 exc5=6:0 exc6=6:0 exc7=6:0 exc8=6:0
//= rax=8 rcx=0x77 rsi=8 rdi=0x77
#include "long64.inc"

test:
        mov     $0x100, %edx
        FAULTS  andn %edx, %edx, %eax
        FAULTS  rorx $3, %edx, %eax
        FAULTS  movbe 0x20000, %eax
        FAULTS  rdrand %eax
        FAULTS  rdpid %rax
        FAULTS  aesenc %xmm0, %xmm1
        FAULTS  pclmulqdq $0, %xmm0, %xmm1
        FAULTS  adcx %edx, %eax
        FAULTS  .byte 0x0f, 0x01, 0xcb  # STAC
        xor     %ebx, %ebx
        mov     $0x77, %ecx
        lzcnt   %ebx, %ecx
        mov     $0x77, %edi
        tzcnt   %ebx, %edi
        lzcnt   %edx, %eax
        tzcnt   %edx, %esi
        xor     %edx, %edx
        END
