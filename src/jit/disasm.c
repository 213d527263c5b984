#include "jit/disasm.h"

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdio.h>

static bool decoder_init(ZydisDecoder *decoder, unsigned code_size)
{
    ZydisMachineMode mode = code_size == 8   ? ZYDIS_MACHINE_MODE_LONG_64
                            : code_size == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                             : ZYDIS_MACHINE_MODE_LEGACY_16;
    ZydisStackWidth width = code_size == 8   ? ZYDIS_STACK_WIDTH_64
                            : code_size == 4 ? ZYDIS_STACK_WIDTH_32
                                             : ZYDIS_STACK_WIDTH_16;

    return ZYAN_SUCCESS(ZydisDecoderInit(decoder, mode, width));
}

size_t disasm_one(const uint8_t *code, size_t avail, uint64_t addr, unsigned code_size, char text[DISASM_LINE])
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

    if (decoder_init(&decoder, code_size) &&
        ZYAN_SUCCESS(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)) &&
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, avail, &insn, op)) &&
        ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &insn, op, insn.operand_count_visible, text,
                                                     DISASM_LINE, addr, NULL)))
        return insn.length;
    if (!avail) {
        *text = '\0';
        return 0;
    }
    snprintf(text, DISASM_LINE, "db 0x%02x", code[0]);
    return 1;
}
