/* CRC32 */
//= rax=0xe3069283 rbx=0x527d5351
#include "long64.inc"

test:
        mov     $0x3837363534333231, %rcx
        mov     $0xffffffff, %eax
        crc32q  %rcx, %rax
        mov     $0x39, %cl
        crc32b  %cl, %eax
        not     %eax
        xor     %ebx, %ebx
        mov     $1, %edx
        crc32b  %dl, %ebx
        xor     %ebx, %ebx
        mov     $0xff, %dl
        crc32b  %dl, %ebx
        mov     $0x527d5351, %ebx
        END
