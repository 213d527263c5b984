/* See decode.h. */
#include "x86/decode.h"

#include <assert.h>

/*
 * What an x86-64-v3 CPU without these extensions does: BND*, CET and CLDEMOTE opcodes are hints (NOP), F3 before WBINVD is
 * ignored, and branches ignore 66 in 64-bit mode as Intel's do.
 */
static const ZydisDecoderMode modes_off[] = {
    ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYDIS_DECODER_MODE_KNC,      ZYDIS_DECODER_MODE_MPX,
    ZYDIS_DECODER_MODE_CET,          ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE,
};

static void decoder_init(ZydisDecoder *decoder, unsigned code_size, bool real)
{
    ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
    ZydisStackWidth width = ZYDIS_STACK_WIDTH_64;
    ZyanStatus status;

    if (code_size == 4) {
        mode = ZYDIS_MACHINE_MODE_LEGACY_32;
        width = ZYDIS_STACK_WIDTH_32;
    } else if (code_size == 2) {
        mode = real ? ZYDIS_MACHINE_MODE_REAL_16 : ZYDIS_MACHINE_MODE_LEGACY_16;
        width = ZYDIS_STACK_WIDTH_16;
    }
    status = ZydisDecoderInit(decoder, mode, width);
    assert(ZYAN_SUCCESS(status));
    for (size_t i = 0; i < ARRAY_SIZE(modes_off); i++) {
        status = ZydisDecoderEnableMode(decoder, modes_off[i], ZYAN_FALSE);
        assert(ZYAN_SUCCESS(status));
    }
}

/* F3 90 is PAUSE; with REX.B the opcode is XCHG R8, RAX, and F3 means nothing. Zydis's tables take it for PAUSE. */
static bool pause_is_xchg(const struct x86_insn *xi)
{
    return xi->insn.mnemonic == ZYDIS_MNEMONIC_PAUSE && xi->insn.raw.rex.B;
}

/* Decodes it again with the F3 turned into another prefix that 64-bit mode ignores. */
static ZyanStatus decode_pause_as_xchg(const ZydisDecoder *decoder, struct x86_insn *xi, const uint8_t *bytes)
{
    uint8_t copy[X86_INSN_MAX];
    size_t len = xi->insn.length;

    memcpy(copy, bytes, len);
    for (size_t i = 0; i < len; i++)
        if (copy[i] == 0xf3)
            copy[i] = 0x2e;
    return ZydisDecoderDecodeFull(decoder, copy, len, &xi->insn, xi->op);
}

enum x86_decode x86_decode(struct x86_insn *xi, unsigned code_size, bool real, const uint8_t *bytes, size_t avail)
{
    ZydisDecoder decoder;
    ZyanStatus status;

    if (!avail)
        return X86_DECODE_MORE;
    decoder_init(&decoder, code_size, real);
    status = ZydisDecoderDecodeFull(&decoder, bytes, avail, &xi->insn, xi->op);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return avail < X86_INSN_MAX ? X86_DECODE_MORE : X86_DECODE_GP;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return X86_DECODE_GP;
    if (!ZYAN_SUCCESS(status))
        return X86_DECODE_UD;
    if (pause_is_xchg(xi) && !ZYAN_SUCCESS(decode_pause_as_xchg(&decoder, xi, bytes)))
        return X86_DECODE_UD;
    if (real && xi->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return X86_DECODE_UD;
    return X86_DECODE_OK;
}
