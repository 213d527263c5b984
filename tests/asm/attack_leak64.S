/*
 * What a program can read of the CPU is the guest's: descriptor registers, selectors, rights and limits, pointers of the x87 unit, state
 * areas, and never the host's. Hot, and as it is at privilege level 3.
 */
//- qemu: it keeps no pointers of the x87 unit
//= mem32[0x500]=0 mem32[0x504]=280 mem32[0x508]=0 mem64[0x510]=0 mem64[0x518]=0
#include "user64.inc"

#define ROUNDS 5

        .balign 64
area:   .fill   1024, 1, 0xcc
table:  .fill   16, 1, 0xcc

test:
        mov     %cr4, %rax
        or      $0x40000, %eax          # OSXSAVE
        mov     %rax, %cr4
        mov     $7, %eax
        xor     %ecx, %ecx
        xor     %edx, %edx
        xsetbv
        mov     $0xc0000103, %ecx       # TSC_AUX
        mov     $0x1234567, %eax
        wrmsr
        mov     $0xc0000102, %ecx       # the kernel's GS base
        mov     $0x55550000, %eax
        wrmsr
        PROGRAM
        mov     $ROUNDS, %r15d
1:
        /* Tables and selectors (no UMIP). */
        sgdt    table
        movzwl  table, %eax
        SAME(%rax, $(gdt_end - gdt - 1))
        SAME(table + 2, $gdt)
        sidt    table
        movzwl  table, %eax
        SAME(%rax, $0xfff)
        SAME(table + 2, $IDT)
        mov     $-1, %rax
        sldt    %rax
        SAME(%rax, $0)
        mov     $-1, %rax
        str     %rax
        SAME(%rax, $SEL_TSS)
        xor     %eax, %eax
        smsw    %ax
        SAME(%rax, $0x33)
        mov     %cs, %eax
        SAME(%rax, $SEL_UCODE64)
        mov     %ss, %eax
        SAME(%rax, $SEL_UDATA)
        .irp    seg, ds, es, fs, gs
        mov     $-1, %rax
        mov     %\seg, %eax
        SAME(%rax, $0)
        .endr
        push    %fs
        pop     %rax
        SAME(%rax, $0)

        /* Rights and limits of the guest's descriptors, as far as level 3 sees them; those that a Linux host uses are not there. */
        .macro  DESCRIPTOR selector, visible, rights=0, limit=0
        mov     $\selector, %ecx
        mov     $-1, %rax
        lar     %ecx, %eax
        jnz     2f
        and     $0xf0ff00, %eax         # the others are undefined
        SAME_   __LINE__, %rax, $\rights
2:      setz    %dl
        movzbl  %dl, %edx
        SAME_   __LINE__, %rdx, $\visible
        mov     $-1, %rax
        lsl     %ecx, %eax
        jnz     3f
        cltq
        SAME_   __LINE__, %rax, $\limit
3:      setz    %dl
        movzbl  %dl, %edx
        SAME_   __LINE__, %rdx, $\visible
        .endm
        DESCRIPTOR SEL_UCODE32, 1, 0xc0fb00, -1
        DESCRIPTOR SEL_UDATA, 1, 0xc0f300, -1
        DESCRIPTOR SEL_UCODE64, 1, 0xa0fb00, -1
        DESCRIPTOR SEL_CODE64 | 3, 0
        DESCRIPTOR SEL_DATA | 3, 0
        DESCRIPTOR SEL_TSS | 3, 0
        DESCRIPTOR 0, 0
        DESCRIPTOR 0x7b, 0                # Linux: processor number
        DESCRIPTOR 0xfffb, 0
        mov     $0x7b, %eax
        verr    %ax
        setz    %dl
        mov     $SEL_UDATA, %eax
        verw    %ax
        setz    %dh
        movzwl  %dx, %edx
        SAME(%rdx, $0x100)

        /* Counters and identity. */
        xor     %edx, %edx
        rdtscp
        SAME(%rcx, $0x1234567)
        rdpid   %rax
        SAME(%rax, $0x1234567)
        xor     %ecx, %ecx
        xgetbv
        SAME(%rax, $7)
        SAME(%rdx, $0)
        rdtsc
        mov     %eax, %esi
        rdtsc
        sub     %esi, %eax              # forward, and not by much
        shr     $31, %eax
        SAME(%rax, $0)

        /* FIP, FDP and FOP are the program's. */
        fninit
        lea     area, %rdi
2:      fldl    BUF
        fxsave64 (%rdi)
        fstp    %st
        SAME(area + 8, $2b)
        SAME(area + 16, $BUF)
3:      fldl    BUF
        fnstenv (%rdi)                  # 32 bits of each
        fstp    %st
        mov     area + 12, %eax
        SAME(%rax, $3b)
        mov     area + 20, %eax
        SAME(%rax, $BUF)

        /* What XSAVE does not have to write it leaves alone, and what it writes is zero where there is nothing. */
        fninit
        vzeroall
        mov     $area, %edi
        mov     $128, %ecx
        xor     %eax, %eax
        rep stosq
        mov     $area, %edi
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 (%rdi)
        xor     %eax, %eax
        mov     $32, %ecx               # the XMM registers
        lea     area + 160, %rdi
        repe scasq
        setz    %al
        SAME(%rax, $1)
        xor     %eax, %eax
        mov     $56, %ecx               # behind the header's first word
        lea     area + 520, %rdi
        repe scasq
        setz    %al
        SAME(%rax, $1)

        /* Registers that the kernel left are the kernel's values: none of a handler of the host's. */
        mov     $0x1111, %r8d
        mov     $0x2222, %r9d
        mov     $0x3333, %r10d
        mov     $0x4444, %r12d
        mov     $0x5555, %r13d
        mov     $0x6666, %r14d
        mov     $0x40000100, %eax
        cpuid
        SAME(%r8, $0x1111)
        SAME(%r9, $0x2222)
        SAME(%r10, $0x3333)
        SAME(%r12, $0x4444)
        SAME(%r13, $0x5555)
        SAME(%r14, $0x6666)
        dec     %r15d
        jnz     1b
        END_USER
