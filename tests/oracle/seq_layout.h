/* Where the sandbox of a sequence lies; for C and assembler. */
#ifndef TESTS_ORACLE_SEQ_LAYOUT_H
#define TESTS_ORACLE_SEQ_LAYOUT_H

/* All below 2 GiB, so that 32-bit and absolute addressing reach it. What lies around each region is not mapped. */
#define SEQ_CODE       0x10000000
#define SEQ_CODE_SIZE  8192 /* read, write and execute; INT3 where there is nothing else */
#define SEQ_DATA       0x20000000
#define SEQ_DATA_SIZE  8192 /* read and write */
#define SEQ_POOL       (SEQ_DATA + SEQ_DATA_SIZE)
#define SEQ_POOL_SIZE  4096 /* constants, read only */
#define SEQ_STACK      0x30000000
#define SEQ_STACK_SIZE 4096
#define SEQ_VARS       0x38000000 /* loop counters and saved stack pointers: no operand is chosen here */
#define SEQ_VARS_SIZE  256        /* what of its page is used */
#define SEQ_FS_BASE    0x7000
#define SEQ_GS_BASE    0x5000

/* The writable memory of the sandbox in one piece: data, then stack, then variables. */
#define SEQ_MEM_SIZE (SEQ_DATA_SIZE + SEQ_STACK_SIZE + SEQ_VARS_SIZE)

/* The variables: eight bytes each. The last one takes stores that have lost what they should have changed. */
#define SEQ_VAR(n)   (SEQ_VARS + 8 * (n))
#define SEQ_VAR_DUMP 31
#define SEQ_N_VARS   31

/* The pool's contents: indices for gathers, which must stay near their base. */
#define SEQ_POOL_INDEX32   SEQ_POOL
#define SEQ_POOL_INDEX64   (SEQ_POOL + 2048)
#define SEQ_POOL_INDEX_MAX 16 /* their magnitude */

#endif
