/* IRETQ to bad selectors: #GP with the selector */
//= n_exc=4 exc0=13:0x38 exc1=13:0x20 exc2=13:0 exc3=13:0x200
#include "long64.inc"

test:
        push    $SEL_UDATA
        push    $USTACK
        push    $2
        push    $0x38                   # RPL 0, but DPL 3
        push    $1f
        FAULTS  iretq
        add     $40, %rsp
        push    $0x20                   # SS of the kernel for a program
        push    $USTACK
        push    $2
        push    $SEL_UCODE64
        push    $1f
        FAULTS  iretq
        add     $40, %rsp
        push    $SEL_UDATA
        push    $USTACK
        push    $2
        push    $0                      # null CS
        push    $1f
        FAULTS  iretq
        add     $40, %rsp
        push    $SEL_UDATA
        push    $USTACK
        push    $2
        push    $0x203                  # beyond the GDT
        push    $1f
        FAULTS  iretq
1:
        END
