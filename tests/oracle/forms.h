/*
 * Every form of every instruction that the oracle may try: found by walking the opcode maps with the decoder, kept as requests to the
 * encoder whose operands the generator then varies.
 */
#ifndef TESTS_ORACLE_FORMS_H
#define TESTS_ORACLE_FORMS_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stddef.h>

enum form_class { FORM_INTEGER, FORM_X87, FORM_MMX, FORM_SSE, FORM_AVX, FORM_PRIVILEGED, FORM_N_CLASSES };

struct form {
    ZydisMnemonic mnemonic;
    enum form_class class;
    ZydisEncoderRequest req;
    bool vary[ZYDIS_ENCODER_MAX_OPERANDS]; /* an operand that the encoding chooses */
    uint8_t imm_size;                      /* bits of the (last) immediate in the template, 0 without */
    bool imm_signed;
    uint16_t size[ZYDIS_ENCODER_MAX_OPERANDS]; /* in bits */
};

struct forms {
    struct form *form; /* sorted by class, then mnemonic */
    size_t n, room;
    struct form_class_index {
        size_t *first; /* of each mnemonic: its first form; one more at the end */
        size_t n;      /* mnemonics */
    } class[FORM_N_CLASSES];
};

/* Of 64-bit mode, or of 32-bit code in compatibility mode. -ENOMEM. Forms that this host cannot execute are left out. */
int forms_open(struct forms *forms, bool compat);
void forms_close(struct forms *forms);

/* Whether the instruction may be tried: of a known set, with nothing in it that cannot be compared. */
bool forms_allow(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops);

#endif
