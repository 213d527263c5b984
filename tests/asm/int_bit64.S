/* BT, BTS, BTR, BTC: register offsets reach beyond the operand */
//= mem64[0x20000]=0x8000000000000000 mem64[0x20008]=2 mem64[0x1fff8]=0x8000000000000000 rax=0 rbx=1 rcx=0x10 rdx=1
#include "long64.inc"

test:
        movq    $0, 0x1fff8
        mov     $63, %esi
        bts     %rsi, 0x20000
        mov     $65, %esi
        bts     %rsi, 0x20000
        mov     $-1, %rsi
        btc     %rsi, 0x20000
        bt      %rsi, 0x20000
        setc    %dl
        mov     $0x3f, %esi
        bt      $1, %rbx
        setc    %al
        bts     $64, %rbx               # modulo 64
        mov     $0x11, %ecx
        btr     $0, %ecx
        END
