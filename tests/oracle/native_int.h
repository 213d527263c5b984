/* Between native.c's child and its assembler part: one page at a fixed address, so that code without a free register finds it. */
#ifndef TESTS_ORACLE_NATIVE_INT_H
#define TESTS_ORACLE_NATIVE_INT_H

#define NATIVE_CTL             0x4d5a0000 /* no value that sequences are fond of */
#define NATIVE_CTL_GPR         0x4d5a0000 /* 16 of them, in the encoding's order */
#define NATIVE_CTL_FAR         0x4d5a0080 /* far pointer to the code: offset (4 bytes), selector */
#define NATIVE_CTL_RFLAGS      0x4d5a0088
#define NATIVE_CTL_DS          0x4d5a0086 /* selector for DS and ES */
#define NATIVE_CTL_HOST        0x4d5a0090 /* the host's RSP meanwhile */
#define NATIVE_CTL_HOST_FS     0x4d5a0098 /* and its FS base */
#define NATIVE_CTL_BACK_FS     0x4d5a00a0 /* what the signal handler returns with: FS base, */
#define NATIVE_CTL_BACK_RFLAGS 0x4d5a00a8 /* and those flags that sigreturn does not take from the frame */
#define NATIVE_CTL_XSAVE       0x4d5a0400 /* standard format, components 0 to 2 */

#ifndef __ASSEMBLER__
#include <signal.h>

/* Loads the state in the page and runs; comes back through native_leave, where the signal handler sends it. */
void native_enter(void);
void native_leave(void);
/* The signal handler: makes the host's flags and FS base its own again for native_fault(), and returns with what that left in the page. */
void native_on_signal(int sig, siginfo_t *info, void *context);
void native_fault(int sig, siginfo_t *info, void *context);
#endif

#endif
