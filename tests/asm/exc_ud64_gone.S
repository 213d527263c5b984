/* Opcodes that 64-bit mode took away are #UD (SDM Vol. 2) */
//= n_exc=16 exc0=6:0 exc1=6:0 exc2=6:0 exc3=6:0 exc4=6:0 exc5=6:0 exc6=6:0 exc7=6:0 exc8=6:0 exc9=6:0 exc10=6:0 exc11=6:0 exc12=6:0 exc13=6:0 exc14=6:0 exc15=6:0
#include "long64.inc"

test:
        FAULTS  .byte 0x07              # POP ES
        FAULTS  .byte 0x0e              # PUSH CS
        FAULTS  .byte 0x16              # PUSH SS
        FAULTS  .byte 0x1e              # PUSH DS
        FAULTS  .byte 0x27              # DAA
        FAULTS  .byte 0x2f              # DAS
        FAULTS  .byte 0x37              # AAA
        FAULTS  .byte 0x3f              # AAS
        FAULTS  .byte 0x60              # PUSHA
        FAULTS  .byte 0x61              # POPA
        FAULTS  .byte 0x9a,0,0,0,0,0,0  # CALL far direct
        FAULTS  .byte 0xce              # INTO
        FAULTS  .byte 0xd4,0x0a         # AAM
        FAULTS  .byte 0xd5,0x0a         # AAD
        FAULTS  .byte 0xea,0,0,0,0,0,0  # JMP far direct
        FAULTS  .byte 0x82,0xc0,0x01    # ADD alias
        END
