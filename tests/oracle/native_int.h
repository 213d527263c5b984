/* Between native.c's child and its assembler part: one page at a fixed address, so that code without a free register finds it. */
#ifndef TESTS_ORACLE_NATIVE_INT_H
#define TESTS_ORACLE_NATIVE_INT_H

#define NATIVE_CTL        0x40000000
#define NATIVE_CTL_GPR    0x40000000 /* 16 of them, in the encoding's order */
#define NATIVE_CTL_FAR    0x40000080 /* far pointer to the code: offset (4 bytes), selector */
#define NATIVE_CTL_RFLAGS 0x40000088
#define NATIVE_CTL_DS     0x40000086 /* selector for DS and ES */
#define NATIVE_CTL_HOST   0x40000090 /* the host's RSP meanwhile */
#define NATIVE_CTL_XSAVE  0x40000400 /* standard format, components 0 to 2 */

#ifndef __ASSEMBLER__
/* Loads the state in the page and runs; comes back through native_leave, where the signal handler sends it. */
void native_enter(void);
void native_leave(void);
#endif

#endif
