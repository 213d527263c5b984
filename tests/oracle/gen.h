/* Makes random sequences: instructions of every form, with what each needs around it to be comparable. */
#ifndef TESTS_ORACLE_GEN_H
#define TESTS_ORACLE_GEN_H

#include "forms.h"
#include "rng.h"
#include "seq.h"

/* forms: of 64-bit and of 32-bit code. The sequence of that seed, and the state and memory it starts from: the same every time. Sets run->code too. */
void gen_sequence(const struct forms forms[2], uint64_t seed, struct seq *seq, struct seq_run *run);

#endif
