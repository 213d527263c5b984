/*
 * The guest's kernel (guest_kernel.S) and the host agree on this: offsets into the kernel's image, and a port.
 *
 * Reading the port ends a pass: the host takes the results and answers what is next.
 */
#ifndef TESTS_ORACLE_GUEST_KERNEL_H
#define TESTS_ORACLE_GUEST_KERNEL_H

#define GUEST_STUB_SIZE  16     /* a vector's code, from the image's start */
#define GUEST_IN         0x2000 /* what the sequence starts from: GPRs in the encoding's order */
#define GUEST_IN_RIP     0x2080 /* then CS, RFLAGS, RSP and SS: a frame for IRETQ */
#define GUEST_IN_DS      0x20a8 /* for DS and ES */
#define GUEST_IN_XSAVE   0x2100 /* standard format, components 0 to 2 */
#define GUEST_OUT        0x2500 /* what it ended with: GPRs, then as pushed: vector, error code, RIP, CS, RFLAGS, RSP */
#define GUEST_OUT_FRAME  0x2580
#define GUEST_OUT_CR2    0x25b0
#define GUEST_OUT_DR6    0x25b8
#define GUEST_OUT_XSAVE  0x2600
#define GUEST_XSAVE_SIZE 832
#define GUEST_IMAGE      0x3000 /* size */

#define GUEST_PORT 0x10

/* The answers. */
#define GUEST_END     0
#define GUEST_AGAIN   1 /* and with its TLB as it is */
#define GUEST_INVLPG  2 /* again, after INVLPG for each page whose state varies */
#define GUEST_MOV_CR3 3 /* again, after loading CR3 */

#ifndef __ASSEMBLER__
extern const unsigned char guest_kernel[GUEST_IMAGE];

/* Where in it the first pass begins: privilege level 0, any stack. */
extern const unsigned char guest_kernel_start[];
#endif

#endif
