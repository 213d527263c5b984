/*
 * What a fuzz target is: libFuzzer's two functions. Each target is one file; with clang it links with -fsanitize=fuzzer, with any
 * compiler with driver.c, which replays a corpus and mutates it for a while.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
