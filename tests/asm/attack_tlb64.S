/*
 * What the kernel may do, its programs may not, though the kernel has just done it at the same address: translations that one mode has
 * brought in serve no other. And rights that were taken away are gone after INVLPG, a new CR3, another PCID, WP or NX.
 */
//- qemu: its TCG has no PCIDs
//= mem32[0x500]=0 mem32[0x504]=234 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define PAGE  0x30000           /* the one in question */
#define OTHER 0x38000
#define PML4B 0x40000           /* a second address space: the first 2 MiB by another table */
#define PDPTB 0x41000
#define PDB   0x42000
#define PTB   0x43000
#define PTEB(address) (PTB + (address) / 512)
#define AGAIN 3

/* The page's entry in the first address space. */
        .macro  ENTRY flags
        movq    $PAGE + \flags, PTE(PAGE)
        FLUSH_PAGE(PAGE)
        .endm

/* The kernel reads and writes the page, and runs code in it. */
        .macro  KERNEL_TOUCHES
        IN_KERNEL call touch
        .endm
touch:
        mov     PAGE + 0x80, %rcx
        mov     %rcx, PAGE + 0x80
        lock addq $0, PAGE + 0x80
        movups  PAGE + 0x80, %xmm0
        movups  %xmm0, PAGE + 0x80
        mov     $PAGE, %ecx
        jmp     *%rcx                   # RET

/* Clobbers r13. */
        .macro  SET register, value
        movabs  $\value, %r13
        IN_KERNEL mov %r13, \register
        .endm
#define CR0    0x80010033
#define CR0_WP 0x10000
#define CR4    0x620
#define CR4_PCIDE 0x20000

test:
        /* The second address space: like the first, but OTHER's memory at PAGE. */
        movq    $PDPTB + 7, PML4B
        movq    $PDB + 7, PDPTB
        movq    $PTB + 7, PDB
        mov     $PT, %esi
        mov     $PTB, %edi
        mov     $512, %ecx
        rep movsq
        movq    $OTHER + 7, PTEB(PAGE)
        movb    $0xc3, PAGE
        movb    $0xc3, OTHER
        movq    $111, PAGE + 0x80
        movq    $222, OTHER + 0x80
        PROGRAM

        mov     $AGAIN, %r15d
again:
        /* U/S: the kernel's page, warm in the kernel. */
        ENTRY   3
        KERNEL_TOUCHES
        FAULT(14, 5, PAGE + 0x80, mov PAGE + 0x80, %al)
        KERNEL_TOUCHES
        FAULT(14, 7, PAGE + 0x80, mov %al, PAGE + 0x80)
        KERNEL_TOUCHES
        FAULT(14, 7, PAGE + 0x80, movups %xmm0, PAGE + 0x80)
        KERNEL_TOUCHES
        FAULT(14, 7, PAGE + 0x80, movups %xmm0, PAGE + 0x80)
        KERNEL_TOUCHES
        CATCH   1f, PAGE
        mov     $PAGE, %ebx
        mov     %rsp, %r12
        call    *%rbx
1:      mov     %r12, %rsp
        CAUGHT(14, 0x15, PAGE)

        /* Given to the program, used by it, taken away. */
        ENTRY   7
        mov     PAGE + 0x80, %rax
        SAME(%rax, $111)
        mov     %rax, PAGE + 0x80
        call    *%rbx
        ENTRY   3
        FAULT(14, 5, PAGE + 0x80, mov PAGE + 0x80, %rax)
        KERNEL_TOUCHES
        FAULT(14, 7, PAGE + 0x80, mov %rax, PAGE + 0x80)
        ENTRY   7
        mov     PAGE + 0x80, %rax

        /* W: written by the program, then read only; the kernel may not either, unless WP is off. */
        mov     %rax, PAGE + 0x80
        ENTRY   5
        mov     PAGE + 0x80, %rax
        FAULT(14, 7, PAGE + 0x80, mov %rax, PAGE + 0x80)
        FAULT(14, 7, PAGE + 0x80, xchg %rax, PAGE + 0x80)
        SET     %cr0, CR0 & ~CR0_WP
        KERNEL_TOUCHES
        FAULT(14, 7, PAGE + 0x80, mov %rax, PAGE + 0x80)
        SET     %cr0, CR0
        IN_KERNEL call may_not_write
        call    *%rbx

        /* NX */
        ENTRY   7
        call    *%rbx
        movl    $0x80000000, PTE(PAGE) + 4
        FLUSH_PAGE(PAGE)
        mov     PAGE + 0x80, %rax
        CATCH   1f, PAGE
        mov     %rsp, %r12
        call    *%rbx
1:      mov     %r12, %rsp
        CAUGHT(14, 0x15, PAGE)
        ENTRY   7
        call    *%rbx

        /* Not there at all. */
        mov     PAGE + 0x80, %rax
        ENTRY   6
        FAULT(14, 4, PAGE + 0x80, mov PAGE + 0x80, %rax)
        FAULT(14, 6, PAGE + 0x80, movq $1, PAGE + 0x80)
        ENTRY   7

        /* Another address space, other memory; and back. Code that is known runs in both. */
        mov     $3, %r14d
3:      mov     PAGE + 0x80, %rax
        SAME(%rax, $111)
        SET     %cr3, PML4B
        mov     PAGE + 0x80, %rax
        SAME(%rax, $222)
        movq    $222, PAGE + 0x80
        SAME(OTHER + 0x80, $222)
        SET     %cr3, PML4
        SAME(OTHER + 0x80, $222)
        dec     %r14d
        jnz     3b

        /* The same with PCIDs, which keep what they know: bit 63 of CR3. */
        SET     %cr4, CR4 | CR4_PCIDE
        SET     %cr3, PML4B + 1
        SET     %cr3, PML4 + 2
        mov     $3, %r14d
3:      SET     %cr3, PML4B + 1 + (1 << 63)
        mov     PAGE + 0x80, %rax
        SAME(%rax, $222)
        SET     %cr3, PML4 + 2 + (1 << 63)
        mov     PAGE + 0x80, %rax
        SAME(%rax, $111)
        movq    $111, PAGE + 0x80
        SAME(OTHER + 0x80, $222)
        dec     %r14d
        jnz     3b
        SET     %cr3, PML4
        SET     %cr4, CR4

        dec     %r15d
        jnz     again
        END_USER

may_not_write:
        FAULT(14, 3, PAGE + 0x80, mov %rax, PAGE + 0x80)
        ret
